package servers

import (
	"context"
	"errors"
)

func dockerAnswers(context.Context) bool { return false }
func dockerPostgres(context.Context, int, Config) (*PostgresServer, error) {
	return nil, errors.New("x")
}
func dockerKafka(context.Context, Config) (*KafkaServer, error) { return nil, errors.New("x") }
