package sim

import (
	"fmt"
	"time"

	"github.com/outboxcdc/outboxcdc/wal/waltest"
)

// tally is what happened in worlds.
type tally struct {
	Events, Stored     int
	Processes          int // begun
	Kills, Terms       int
	Cuts, Crashes      int
	LostLinks, Outages int // of Postgres
	Shutdowns, Storms  int
	BrokerOutages      int
	BrokerLostLinks    int
	BrokerHolds        int
	BrokerErrors       int           // answers with an error that may pass
	Refusals           int           // answers with an error that does not
	Moves              int           // of leaders
	Paces              waltest.Paces // of the reader
	Statuses           int           // that confirmed something
	Recovery           time.Duration // the longest
}

func (a *tally) add(b tally) {
	a.Events += b.Events
	a.Stored += b.Stored
	a.Processes += b.Processes
	a.Kills += b.Kills
	a.Terms += b.Terms
	a.Cuts += b.Cuts
	a.Crashes += b.Crashes
	a.LostLinks += b.LostLinks
	a.Outages += b.Outages
	a.Shutdowns += b.Shutdowns
	a.Storms += b.Storms
	a.BrokerOutages += b.BrokerOutages
	a.BrokerLostLinks += b.BrokerLostLinks
	a.BrokerHolds += b.BrokerHolds
	a.BrokerErrors += b.BrokerErrors
	a.Refusals += b.Refusals
	a.Moves += b.Moves
	a.Paces.Add(b.Paces)
	a.Statuses += b.Statuses
	a.Recovery = max(a.Recovery, b.Recovery)
}

func (a *tally) faults() int {
	return a.Kills + a.Terms + a.Cuts + a.Crashes + a.LostLinks + a.Outages + a.Shutdowns + a.Storms +
		a.BrokerOutages + a.BrokerLostLinks + a.BrokerHolds + a.BrokerErrors + a.Refusals + a.Moves
}

// String is for the log of a test.
func (a *tally) String() string {
	type plain tally
	return fmt.Sprintf("%d faults, %d events, %d sent again; %+v", a.faults(), a.Events, a.Stored-a.Events, plain(*a))
}
