package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/halevm/hale/internal/hypervisor"
)

// speak is a QEMU that greets and answers each command with what answer returns.
func speak(t *testing.T, conn net.Conn, answer func(command string, id uint64) string) {
	t.Helper()
	fmt.Fprintln(conn, `{"QMP": {"version": {}, "capabilities": []}}`)
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		var m struct {
			Execute string
			ID      uint64
		}
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			t.Errorf("QEMU was sent %q", lines.Text())
			return
		}
		fmt.Fprintln(conn, answer(m.Execute, m.ID))
	}
}

func TestQMP(t *testing.T) {
	ours, theirs := net.Pipe()
	events := make(chan string, 4)
	go speak(t, theirs, func(command string, id uint64) string {
		switch command {
		case "qmp_capabilities":
			return fmt.Sprintf(`{"event":"RESUME","timestamp":{"seconds":7,"microseconds":5}}`+"\n"+`{"return":{},"id":%d}`, id)
		case "query-status":
			return fmt.Sprintf(`{"return":{"status":"running"},"id":%d}`, id)
		default:
			return fmt.Sprintf(`{"error":{"class":"CommandNotFound","desc":"no such command"},"id":%d}`, id)
		}
	})
	q := newQMP(ours, func(name string, _ json.RawMessage, at time.Time) { events <- fmt.Sprint(name, at.UnixMicro()) })
	defer q.close()
	if err := q.ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e := <-events; e != "RESUME7000005" {
		t.Errorf("event %q", e)
	}
	var status struct{ Status string }
	if err := q.execute(t.Context(), "query-status", nil, &status); err != nil || status.Status != "running" {
		t.Errorf("query-status: %+v, %v", status, err)
	}
	if err := q.execute(t.Context(), "nonsense", nil, nil); err == nil || !strings.Contains(err.Error(), "no such command") {
		t.Errorf("a refused command: %v", err)
	}
}

func TestQMPEndsWithItsConnection(t *testing.T) {
	ours, theirs := net.Pipe()
	q := newQMP(ours, nil)
	go func() {
		bufio.NewReader(theirs).ReadString('\n')
		theirs.Close()
	}()
	if err := q.execute(t.Context(), "stop", nil, nil); err == nil {
		t.Error("a command was answered by nobody")
	}
	<-q.done
	if err := q.execute(t.Context(), "stop", nil, nil); err != errClosed {
		t.Errorf("afterwards: %v", err)
	}
}

func TestQMPGivesUpWithItsContext(t *testing.T) {
	ours, theirs := net.Pipe()
	go bufio.NewReader(theirs).ReadString('\n')
	q := newQMP(ours, nil)
	defer q.close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := q.execute(ctx, "stop", nil, nil); err == nil {
		t.Error("a command was answered by nobody")
	}
}

func FuzzQMP(f *testing.F) {
	f.Add([]byte(`{"QMP": {}}` + "\n" + `{"return":{},"id":1}` + "\n"))
	f.Add([]byte(`{"event":"SHUTDOWN","data":{"guest":true},"timestamp":{"seconds":1,"microseconds":2}}` + "\n"))
	f.Add([]byte("{\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		ours, theirs := net.Pipe()
		vm := &VM{events: make(chan hypervisor.Event, 16)}
		q := newQMP(ours, vm.event)
		theirs.SetDeadline(time.Now().Add(time.Second))
		theirs.Write(in)
		theirs.Close()
		<-q.done
	})
}
