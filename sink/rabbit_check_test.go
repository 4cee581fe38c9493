package sink

import "testing"

func TestABindingTakesWhatRabbitMQSays(t *testing.T) {
	for _, c := range []struct {
		kind, pattern, key string
		want               bool
	}{
		{"direct", "a.b", "a.b", true},
		{"direct", "a.#", "a.b", false},
		{"fanout", "", "a.b", true},
		{"x-consistent-hash", "1", "a.b", true},
		{"topic", "a.b", "a.b", true},
		{"topic", "a.*", "a.b", true},
		{"topic", "*", "a.b", false},
		{"topic", "#", "a.b", true},
		{"topic", "#", "", true},
		{"topic", "a.#", "a", true},
		{"topic", "a.#.z", "a.b.c.z", true},
		{"topic", "a.#.z", "a.b.c", false},
		{"topic", "*.b.#", "a.b", true},
		{"topic", "#.b", "b", true},
	} {
		if got := matches(c.kind, c.pattern, c.key); got != c.want {
			t.Errorf("a %s exchange: binding %q takes %q: %v, want %v", c.kind, c.pattern, c.key, got, c.want)
		}
	}
}
