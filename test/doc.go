// Package test holds the tests that need a real Postgres or a real Kafka.
package test
