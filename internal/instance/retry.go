package instance

import (
	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/machine"
)

// bootAgain boots the machine of the present start once more if it ended before its agent said a word: nothing of the image has run by
// then. It reports whether the start goes on. It is told before it is done, so that a daemon which dies in between finds how
// many boots there were, and goes on with this one (takeBack).
func (o *owner) bootAgain(e machine.Exit) bool {
	in := o.rec.Instance
	if !e.Silent || in.State != Initializing || o.because != "" || in.Boots > o.s.c.BootRetries {
		return false
	}
	next := o.rec
	next.Ended = e.Time
	next.Instance.Boots = max(in.Boots, 1) + 1
	next.Instance.BootedAt = now()
	next.Instance.Agent, next.Instance.Network = false, false
	next.Instance.Ports = nil
	o.happened(next, change{event.TypeBootRetry, event.BootRetry{Boot: next.Instance.Boots, Reason: why(e)}})
	o.log.Warn("the guest did not come up: it is booted once more", "boot", next.Instance.Boots, "reason", e.Reason, "message", e.Message, "console", e.Console)
	if o.s.c.BootRetried != nil {
		o.s.c.BootRetried()
	}
	o.goOn()
	return true
}

// goOn boots the machine of a start that is under way.
func (o *owner) goOn() {
	m, err := o.boot()
	if err != nil {
		o.ended(machine.Exit{Reason: machine.VMMFailed, Message: err.Error()})
		return
	}
	o.attach(m)
}

// betweenBoots reports whether the daemon died between the record of a boot that is not the start's first and that boot's machine. Then
// there is nothing, or how a boot before it ended.
func (o *owner) betweenBoots(e *Ended) bool {
	in := o.rec.Instance
	return in.State == Initializing && in.Boots > 1 && (e == nil || e.Exit.Silent && o.before(e.Exit))
}

// before reports whether e is the end of a machine from before the boot that the record tells of. It is recognised by its time, and not by
// that being earlier: the clock may have been set back since the boot.
func (o *owner) before(e machine.Exit) bool {
	in := o.rec.Instance
	switch {
	case in.Run <= 1 && in.Boots <= 1:
		return false // there was none
	case !o.rec.Ended.IsZero():
		return e.Time.Equal(o.rec.Ended)
	}
	return !e.Time.IsZero() && e.Time.Before(in.BootedAt) // a record of an earlier version
}
