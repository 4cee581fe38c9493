package servers

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestAServerThatEndsByItselfIsTriedAgain(t *testing.T) {
	other := errors.New("disk full")
	for _, tt := range []struct {
		name  string
		ends  []error
		tries int
		want  error
	}{
		{"at once", []error{nil}, 1, nil},
		{"port taken twice", []error{errDown, fmt.Errorf("wait: %w", errDown), nil}, 3, nil},
		{"never", []error{errDown, errDown, errDown, nil}, 3, errDown},
		{"for another reason", []error{other, nil}, 1, other},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tries := 0
			_, err := retried(func() (int, error) {
				tries++
				return tries, tt.ends[tries-1]
			})
			if tries != tt.tries || !errors.Is(err, tt.want) {
				t.Errorf("%d tries and then %v, want %d and %v", tries, err, tt.tries, tt.want)
			}
		})
	}
}

func TestAnotherServerOnOurPortIsNotTakenForOurs(t *testing.T) {
	ctx := context.Background()
	k := &KafkaServer{machine: given{}, brokers: SharedKafka(t).Bootstrap(), cluster: newClusterID()}
	if err := k.ready(ctx); !errors.Is(err, errForeign) {
		t.Errorf("another Kafka: %v", err)
	}
	d := SharedPostgres(t)
	p := newPostgres(given{}, "127.0.0.1", 0, newPassword())
	p.url.Host = d.Server.Address()
	if p.ready(ctx) == nil {
		t.Error("another Postgres took our password")
	}
}
