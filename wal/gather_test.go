package wal_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outboxcdc/outboxcdc/wal"
	"github.com/outboxcdc/outboxcdc/wal/waltest"
)

// TestNoRowWaitsLongForCompany: a backlog is waited for, what comes alone behind it is
// not, and no row of either waits for longer than a wait may take.
func TestNoRowWaitsLongForCompany(t *testing.T) {
	waits := func(p waltest.Paces) int { return p.Waits }
	pulls := func(p waltest.Paces) int { return p.Pulls }
	t.Run("wide window", func(t *testing.T) { rowsWaitForCompany(t, waltest.Shape{}, waits, pulls, 3) })
	t.Run("narrow window", func(t *testing.T) { rowsWaitForCompany(t, waltest.Shape{Narrow: true}, pulls, waits, 4) })
}

// rowsWaitForCompany reads through a connection on which large pieces are gathered in one
// way and not in the other, for so many milliseconds at the end of a backlog.
func rowsWaitForCompany(t *testing.T, shape waltest.Shape, oneWay, otherWay func(waltest.Paces) int, last int) {
	t.Helper()
	const most = 5 * time.Millisecond
	bubbleOn(t, shape, 0, func(t *testing.T, ctx context.Context, r *reading) {
		r.server.Transaction(7, outboxRelation)
		for _, phase := range []struct {
			name   string
			every  time.Duration
			rows   int
			behind time.Duration // of the walsender
			free   int           // rows that may wait
			waited bool          // whether the reader must have waited for large pieces
		}{
			{"live", time.Millisecond, 300, 0, 0, false},
			{"live, and as fast as a backlog", 20 * time.Microsecond, 3000, 0, 0, false},
			{"backlog", 20 * time.Microsecond, 3000, time.Second, 3000, true},
			{"live after a backlog", time.Millisecond, 300, 0, last, true},
			{"backlog by a clock that is not the server's", 20 * time.Microsecond, 3000, -time.Second, 3000, true},
			{"live after that", time.Millisecond, 300, -time.Second, 80, true},
			{"alone", time.Second, 30, 0, 0, true},
		} {
			r.server.Behind(phase.behind)
			late := 0
			for sent, got := 0, 0; got < phase.rows; {
				next := time.NewTimer(phase.every)
				if sent < phase.rows {
					r.server.Transaction(7, insert(fmt.Sprint(time.Now().UnixNano())))
					sent++
				}
				for timed := false; !timed; {
					select {
					case b := <-r.out:
						late += lateRows(t, b, most)
						got += len(b.Rows)
					case <-next.C:
						timed = true
					case <-ctx.Done():
						t.Fatalf("%s: %d of %d rows came", phase.name, got, phase.rows)
					}
				}
			}
			if late > phase.free {
				t.Errorf("%s: %d rows waited, want %d at the most", phase.name, late, phase.free)
			}
			if waited := oneWay(r.server.Paces()) > 0; waited != phase.waited {
				t.Errorf("%s: waited for large pieces: %v, want %v", phase.name, waited, phase.waited)
			}
			if n := otherWay(r.server.Paces()); n > 0 {
				t.Errorf("%s: %d large pieces were waited for in the way of another connection", phase.name, n)
			}
		}
	})
}

// TestARowThatCameLateLetsTheNextOnesGather until one comes in time, by the times that the
// server says.
func TestARowThatCameLateLetsTheNextOnesGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := waltest.NewServer(testStart)
		server.Transaction(7, outboxRelation, insert("late"))
		time.Sleep(time.Second) // the bubble's clock
		r := read(t, t.Context(), server, 0)
		r.take(t, t.Context())
		synctest.Wait()
		if server.Paces().Waits == 0 {
			t.Error("a row came a second after its commit, and what follows it is read at once")
		}
		server.Transaction(8, insert("in time"))
		r.take(t, t.Context())
		before := server.Paces().Waits
		server.Transaction(9, insert("in time"))
		r.take(t, t.Context())
		synctest.Wait()
		if waits := server.Paces().Waits - before; waits > 0 {
			t.Errorf("%d waits behind a row that came in time", waits)
		}
		r.end()
	})
}

// lateRows is how many of the rows have waited at all; each holds the time of its
// insert.
func lateRows(t *testing.T, b wal.Batch, most time.Duration) (late int) {
	t.Helper()
	for _, row := range b.Rows {
		at, err := strconv.ParseInt(string(row.Columns[0]), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		waited := time.Since(time.Unix(0, at))
		if waited > most {
			t.Errorf("a row waited %v, want %v at the most", waited, most)
		}
		if waited > 0 {
			late++
		}
	}
	return late
}
