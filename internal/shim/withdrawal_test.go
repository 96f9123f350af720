package shim

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// It does for who waits what a context of package context does, whether they came before its end or after it.
func TestWithdrawal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := new(withdrawal)
		called := make(chan string, 10)
		w.AfterFunc(func() { called <- "method" })
		context.AfterFunc(w, func() { called <- "package" })
		if stop := w.AfterFunc(func() { called <- "stopped" }); !stop() || stop() {
			t.Error("what has not been called yet can be stopped, once")
		}
		child, cancel := context.WithTimeout(w, time.Hour)
		defer cancel()
		over, cancelOver := context.WithCancel(w)
		cancelOver()
		synctest.Wait()
		if len(called) != 0 || w.Err() != nil || child.Err() != nil || over.Err() == nil {
			t.Fatalf("before its end: %d called, %v, %v", len(called), w.Err(), child.Err())
		}
		done := w.Done()
		w.end()
		w.end()
		synctest.Wait()
		<-done
		<-child.Done()
		if a, b := <-called, <-called; a == b || len(called) != 0 || w.Err() != context.Canceled || context.Cause(child) != context.Canceled {
			t.Errorf("after its end %s and %s were called, and %d more; %v, %v", a, b, len(called), w.Err(), context.Cause(child))
		}
		if stop := w.AfterFunc(func() { called <- "late" }); stop() {
			t.Error("what was called at once was stopped")
		}
		<-w.Done()
		if got := <-called; got != "late" {
			t.Errorf("%s was called", got)
		}
	})
}
