package wal

import (
	"fmt"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

func judgeSlot(config Config, server serverFacts, slot slotFacts) []fault.Finding {
	f := findings{subject: "slot " + config.Slot}
	if !slot.exists {
		f.failure(CodeSlotMissing, "it does not exist", "run outboxcdc init, or: "+SlotSQL(config))
		return f.all
	}
	if f.foreign(server, slot) {
		return f.all
	}
	f.lost(config, slot)
	drop := fmt.Sprintf("SELECT pg_drop_replication_slot(%s);", quoteText(slot.Name))
	if slot.Synced && server.Standby { // on a primary it only tells of the past
		f.failure(CodeSlotSynced, "it is a standby's copy, which nobody can stream from", "name the primary in the database URL")
	}
	if slot.TwoPhase {
		f.failure(CodeSlotTwoPhase, "two_phase is on, so rows of prepared transactions come before they are committed",
			"drop it when all of it is delivered, and make it without two_phase: "+drop+" "+SlotSQL(config))
	}
	if end := LSN(server.End); slot.Confirmed > end && !server.Standby {
		f.failure(CodeSlotAhead, fmt.Sprintf("it has confirmed %v, but the log ends at %v: another client confirmed what was never written, "+
			"and whatever is committed up to there is skipped", slot.Confirmed, end),
			mendSlot(config, "makes it anew and sends from the table what is missing"))
	}
	f.inUse(slot)
	return f.orOK(CodeSlot, fmt.Sprintf("it is free and everything up to %v is confirmed", slot.Confirmed))
}

// foreign says whether the slot is of no use to us for good.
func (f *findings) foreign(server serverFacts, slot slotFacts) bool {
	var is string
	switch {
	case slot.Type != "logical":
		is = "a physical slot, which a standby reads"
	case slot.Plugin != plugin:
		is = fmt.Sprintf("a slot of the plugin %s, and %s is wanted", slot.Plugin, plugin)
	case slot.Database != server.Database:
		is = fmt.Sprintf("a slot of database %s, and this is %s", displayName(slot.Database), displayName(server.Database))
	case slot.Temporary:
		is = "a temporary slot, which goes with its session"
	default:
		return false
	}
	f.failure(CodeSlotForeign, "it is "+is, fmt.Sprintf(
		"choose another name with --slot, or drop it if nobody needs it: SELECT pg_drop_replication_slot(%s);", quoteText(slot.Name)))
	return true
}

// lost finds a slot whose log is gone. The position that it confirmed last is where
// the gap begins.
func (f *findings) lost(config Config, slot slotFacts) {
	if !slot.Lost() {
		return
	}
	f.failure(CodeSlotLost, fmt.Sprintf("it was invalidated (%s): what was committed after %v cannot be read from the log any more",
		slot.LostReason(), slot.Confirmed),
		mendSlot(config, "sends from the table what is missing and makes the slot anew")+
			"; see that it does not happen again (max_slot_wal_keep_size, idle_replication_slot_timeout)")
}

// mendSlot is the way out where log is missing. Logical messages are in no table to send
// them from.
func mendSlot(config Config, recovery string) string {
	if len(config.Tables) == 0 {
		return "logical messages that are missing are gone; run outboxcdc stream, which names the gap, and goes on behind it with --accept-gap"
	}
	return fmt.Sprintf("run outboxcdc recover --slot %s, which %s", config.Slot, recovery)
}

func (f *findings) inUse(slot slotFacts) {
	switch {
	case slot.Active && slot.Confirmed == 0:
		f.warning(CodeSlotActive, fmt.Sprintf("it is being made by %s", slot.holder), "wait until the transactions end that were running")
	case slot.Active:
		f.warning(CodeSlotActive, fmt.Sprintf("%s streams from it, so a second stream stands by", slot.holder),
			"stop the other one to take over at once")
	}
	if slot.InDanger() {
		f.warning(CodeSlotRetained, fmt.Sprintf("%s of log are kept for it, and it is lost when %s more are written", humanBytes(slot.RetainedBytes),
			humanBytes(max(0, slot.SafeBytes))),
			"start the stream, end old transactions, or raise max_slot_wal_keep_size")
	}
}
