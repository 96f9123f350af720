package crash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/halevm/hale/api"
	hale "github.com/halevm/hale/sdk/go"
)

// A life is an instance as a reader of the events knows it.
type life struct {
	state   string
	deleted bool
}

// begin makes the sentinel, whose updates say how far the events are read, and finds a place in them.
func (x *test) begin() {
	x.importBase()
	in, err := x.CreateInstance(x.Context(), api.CreateInstanceRequest{Name: "sentinel", Image: x.image, Size: api.Size(x.Size), Entrypoint: x.Ends})
	if err != nil {
		x.Fatal(err)
	}
	x.sentinel = in.ID
	if w, err := x.WaitInstance(x.Context(), in.ID, hale.Wait{State: api.InstanceStateStopped, Timeout: patience}); err != nil || w.State != api.InstanceStateStopped {
		x.Fatalf("the sentinel is %s, %v", w.State, err)
	}
	ctx, cancel := context.WithTimeout(x.Context(), patience)
	defer cancel()
	first := make(chan string, 1)
	go func() {
		for e, err := range x.Events(ctx, "") {
			if err == nil {
				first <- e.ID
			}
			return
		}
	}()
	for n := 0; x.place == ""; n++ { // until the reader follows
		x.mark(fmt.Sprint("begin ", n))
		select {
		case x.place = <-first:
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			x.Fatal("no event came")
		}
	}
	x.readTo("env")
}

// mark changes the sentinel's tags.
func (x *test) mark(text string) {
	x.updateSentinel(api.UpdateInstanceRequest{Tags: api.Tags{"mark": text}})
}

func (x *test) updateSentinel(r api.UpdateInstanceRequest) {
	if _, err := x.UpdateInstance(x.Context(), x.sentinel, r); err != nil {
		x.Fatal(err)
	}
}

// readTo changes the sentinel's tags or env, and reads the events up to that one.
func (x *test) readTo(field string) {
	x.Helper()
	if value := fmt.Sprint(time.Now().UnixNano()); field == "env" {
		x.updateSentinel(api.UpdateInstanceRequest{Env: map[string]*string{"MARK": &value}})
	} else {
		x.mark(value)
	}
	ctx, cancel := context.WithTimeout(x.Context(), patience)
	defer cancel()
	for e, err := range x.Events(ctx, x.place) {
		if err != nil {
			x.Fatalf("events: %v", err)
		}
		x.place = e.ID
		if e.Type == hale.EventResync {
			x.Fatalf("a reader that missed nothing is told to list again: %s", e.Data)
		}
		if e.Instance != x.sentinel {
			x.hear(e)
		} else if e.Type == "updated" && strings.Contains(string(e.Data), `"`+field+`"`) {
			return
		}
	}
}

// hear follows one event.
func (x *test) hear(e api.Event) {
	l := x.followed[e.Instance]
	if e.Type == "created" {
		if l != nil {
			x.Errorf("%s is created twice", e.Name)
		}
		x.followed[e.Instance] = &life{state: string(api.InstanceStateCreated)}
		return
	}
	if l == nil || l.deleted {
		x.Errorf("an event of type %s tells of %s (%s), which is not there", e.Type, e.Name, e.Instance)
		return
	}
	switch e.Type {
	case "deleted":
		l.deleted = true
	case "state":
		var c struct{ From, To string }
		if err := json.Unmarshal(e.Data, &c); err != nil {
			x.Error(err)
		}
		if c.From != l.state || c.To == c.From {
			x.Errorf("%s goes from %s to %s, and was %s", e.Name, c.From, c.To, l.state)
		}
		l.state = c.To
	}
}

// check holds what there is against what was acknowledged.
func (x *test) check() {
	x.Helper()
	list, err := x.Instances(x.Context(), hale.InstanceFilter{})
	if err != nil {
		x.Fatal(err)
	}
	x.checkOnce(list)
	for _, s := range x.slots {
		x.checkSlot(s)
	}
	x.checkImages(list)
	x.follow()
	x.checkFiles()
	if x.Survive {
		x.checkProcesses()
	}
}

// checkOnce sees that nothing is there twice, or that nobody asked for.
func (x *test) checkOnce(list []api.Instance) {
	ids, names, addresses := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, in := range list {
		if ids[in.ID] || names[in.Name] {
			x.Errorf("%s (%s) is there twice", in.Name, in.ID)
		}
		ids[in.ID], names[in.Name] = true, true
		if n := in.Network; n != nil && n.IP != nil {
			if addresses[*n.IP] {
				x.Errorf("%s is the address of two", *n.IP)
			}
			addresses[*n.IP] = true
		}
		known := slices.ContainsFunc(x.slots, func(s *slot) bool { return s.name == in.Name }) || in.ID == x.sentinel
		if !known {
			x.Errorf("%s (%s) was never asked for", in.Name, in.ID)
		}
	}
	if !ids[x.sentinel] {
		x.Error("the sentinel is gone")
	}
}

// checkSlot holds an instance against what was acknowledged about it, and takes what is there for what counts from now on.
func (x *test) checkSlot(s *slot) {
	was := *s
	s.pending, s.wanted = "", ""
	in, err := x.Instance(x.Context(), s.name)
	there := err == nil
	if err != nil && !errors.Is(err, api.NotFound) {
		x.Fatal(err)
	}
	// A daemon is ready before it has heard of a machine whose shim the host keeps from answering.
	for deadline := time.Now().Add(patience); there && x.Survive && in.State == api.InstanceStateUnknown && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
		if in, err = x.Instance(x.Context(), s.name); err != nil {
			x.Fatal(err)
		}
	}
	must := was.id != "" && was.pending != "delete"
	may := was.id != "" || was.pending == "create"
	if must && !there || there && !may {
		x.Errorf("%s: there is one: %v; acknowledged: %+v", s.name, there, was)
		return
	}
	if !there {
		*s = slot{name: s.name}
		return
	}
	if was.id != "" && in.ID != was.id {
		x.Errorf("%s is %s, and was %s", s.name, in.ID, was.id)
	}
	if v := in.Tags["v"]; v != was.tags && (v != was.wanted || was.pending != "update" && was.pending != "create") {
		x.Errorf("%s has the tag %q; acknowledged: %+v", s.name, v, was)
	}
	if err := x.checkState(was, in); err != nil {
		x.Errorf("%s is %s (%s, started %v, stopped %v): %v; acknowledged: %+v", s.name, in.State, in.ExitReason, in.StartedAt, in.StoppedAt, err, was)
	}
	s.id, s.tags = in.ID, in.Tags["v"]
	s.began(in)
	switch {
	case in.State == api.InstanceStateStopped && in.StoppedAt != nil:
		s.stopped, s.reason = *in.StoppedAt, in.ExitReason
	case in.State == api.InstanceStateRunning:
		s.running = true
	}
}

// checkState says what is wrong with an instance's state.
func (x *test) checkState(was slot, in api.Instance) error {
	stopped := in.State == api.InstanceStateStopped
	if stopped && (in.StoppedAt == nil || in.ExitReason == "") {
		return errors.New("it is stopped without a time and a reason")
	}
	if !x.Survive && !stopped {
		return errors.New("its machine ended with the daemon")
	}
	switch was.pending {
	case "create", "start", "stop", "delete":
		return nil // it may have been done, wholly or in part
	}
	switch {
	case !was.stopped.IsZero():
		if !stopped || !in.StoppedAt.Equal(was.stopped) || in.ExitReason != was.reason {
			return errors.New("it was stopped")
		}
	case in.StartedAt == nil || !in.StartedAt.Equal(was.started):
		return errors.New("its run is another")
	case was.ends && stopped && in.ExitReason == "program_exited":
		// by itself
	case x.Survive:
		if stopped && !was.ends || was.running && !was.ends && in.State != api.InstanceStateRunning {
			return errors.New("it ran")
		}
	case in.ExitReason != "daemon_stopped":
		return errors.New("it ran, and its machine ended with the daemon")
	}
	return nil
}

// checkImages sees that every image whose import was acknowledged is there, whole, and that no disk is nobody's.
func (x *test) checkImages(instances []api.Instance) {
	list, err := x.Images(x.Context(), nil)
	if err != nil {
		x.Fatal(err)
	}
	there, disks := map[string]bool{}, map[string]bool{}
	for _, img := range list {
		if there[img.Name] {
			x.Errorf("image %s is there twice", img.Name)
		}
		there[img.Name] = true
		disks[img.Digest] = true
		if img.Status != api.ImageStatusReady {
			x.Errorf("image %s is %s", img.Name, img.Status)
		}
	}
	for _, in := range instances {
		disks[in.ImageDigest] = true
	}
	for ref, acknowledged := range x.images {
		name := "docker.io/" + ref
		if acknowledged && !there[name] {
			x.Errorf("image %s was imported, and is not there", ref)
		}
		if there[name] { // it served
			if err := x.DeleteImage(x.Context(), name); err != nil {
				x.Errorf("delete image %s: %v", ref, err)
			}
		}
		delete(x.images, ref)
	}
	for _, f := range x.entries("images/disks") {
		if digest := "sha256:" + strings.TrimSuffix(f, ".ext4"); !disks[digest] {
			x.Errorf("images/disks/%s is nobody's", f)
		}
	}
	for _, dir := range []string{"images/staging", "images/partial"} {
		if left := x.entries(dir); len(left) > 0 {
			x.Errorf("%s holds %v", dir, left)
		}
	}
}

func (x *test) entries(dir string) []string {
	entries, err := os.ReadDir(filepath.Join(x.Dir, dir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		x.Error(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// checkFiles sees that each directory is an instance's, and that each record can be read. The daemon is at rest but for machines that start.
func (x *test) checkFiles() {
	list, err := x.Instances(x.Context(), hale.InstanceFilter{})
	if err != nil {
		x.Fatal(err)
	}
	dirs := x.entries("instances")
	for _, in := range list {
		if !slices.Contains(dirs, in.ID) {
			x.Errorf("%s has no directory", in.Name)
		}
	}
	for _, dir := range dirs {
		if !slices.ContainsFunc(list, func(in api.Instance) bool { return in.ID == dir }) {
			x.Errorf("instances/%s is nobody's", dir)
			continue
		}
		for _, f := range x.entries("instances/" + dir) {
			if !strings.HasSuffix(f, ".json") {
				continue
			}
			b, err := os.ReadFile(filepath.Join(x.Dir, "instances", dir, f))
			if err == nil && !json.Valid(b) {
				err = fmt.Errorf("it holds %q", b)
			}
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				x.Errorf("instances/%s/%s: %v", dir, f, err)
			}
		}
	}
}

// follow reads the events of the round: each begins where the last one ended, and they tell what there is.
func (x *test) follow() {
	x.readTo("tags")
	for _, s := range x.slots {
		if s.id == "" {
			continue
		}
		l := x.followed[s.id]
		if l == nil || l.deleted {
			x.Errorf("the events tell of no %s (%s)", s.name, s.id)
			continue
		}
		if in, err := x.Instance(x.Context(), s.id); err == nil && !x.Survive && string(in.State) != l.state {
			x.Errorf("%s is %s, and a reader of the events thinks %s", s.name, in.State, l.state)
		}
	}
	for id, l := range x.followed {
		if !l.deleted && !slices.ContainsFunc(x.slots, func(s *slot) bool { return s.id == id }) {
			x.Errorf("the events tell of %s, which is not there", id)
		}
	}
}

// checkProcesses sees that each machine that is there has its two processes, and that there are no others.
func (x *test) checkProcesses() {
	var wrong []string
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		list, err := x.Instances(x.Context(), hale.InstanceFilter{})
		if err != nil {
			x.Fatal(err)
		}
		wrong = nil
		found := x.processes()
		for _, in := range list {
			want := 2
			if in.State == api.InstanceStateStopped {
				want = 0
			}
			if n := len(found[in.ID]); n != want {
				wrong = append(wrong, fmt.Sprintf("%s is %s, and has the processes %q", in.Name, in.State, found[in.ID]))
			}
			delete(found, in.ID)
		}
		for id, p := range found {
			wrong = append(wrong, fmt.Sprintf("instance %s is not there, and has the processes %q", id, p))
		}
		if len(wrong) == 0 {
			return
		}
		if time.Now().After(deadline) {
			x.Errorf("after %v: %s", patience, strings.Join(wrong, "; "))
			return
		}
	}
}

// processes are those that have their working directories in instances' ones, by id. A hypervisor inherits its shim's.
func (x *test) processes() map[string][]string {
	found := map[string][]string{}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		x.Fatal(err)
	}
	for _, d := range dirs {
		cwd, err := os.Readlink(d + "/cwd")
		rest, in := strings.CutPrefix(cwd, filepath.Join(x.Dir, "instances")+"/")
		if err != nil || !in {
			continue
		}
		args, err := os.ReadFile(d + "/cmdline")
		if err != nil || len(args) == 0 {
			continue
		}
		id, _, _ := strings.Cut(rest, "/")
		found[id] = append(found[id], filepath.Base(d)+" "+strings.ReplaceAll(string(args[:min(len(args), 60)]), "\x00", " "))
	}
	return found
}

// end deletes everything, and ends the daemon in order.
func (x *test) end() {
	list, err := x.Instances(x.Context(), hale.InstanceFilter{})
	if err != nil {
		x.Fatal(err)
	}
	for _, in := range list {
		if err := x.DeleteInstance(x.Context(), in.ID, false); err != nil {
			x.Errorf("delete %s: %v", in.Name, err)
		}
	}
	if left := x.entries("instances"); len(left) > 0 {
		x.Errorf("instances holds %v", left)
	}
	if err := x.daemon.Process.Signal(syscall.SIGTERM); err != nil {
		x.Fatal(err)
	}
	if err := x.daemon.Wait(); err != nil {
		x.Errorf("the daemon ended with %v", err)
	}
	if left := x.processes(); len(left) > 0 {
		x.Errorf("left running: %v", left)
	}
}
