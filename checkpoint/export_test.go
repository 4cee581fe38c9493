package checkpoint

import "time"

// PollFor is for how long a Kafka store waits for records that may not be there.
func PollFor(s Store, idle time.Duration) { s.(*kafkaStore).idle = idle }
