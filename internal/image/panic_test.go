package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/halevm/hale/api"
	"github.com/halevm/hale/internal/registry"
)

// failsByPanic fails the test unless err tells of the panic and blames nobody, and the log has its stack, once, with the name of a function that panicked.
func failsByPanic(t *testing.T, err error, log, in string) {
	t.Helper()
	if _, refused := errors.AsType[*api.Error](err); err == nil || refused || !strings.Contains(err.Error(), "panicked: on purpose") {
		t.Errorf("the error is %v", err)
	}
	if strings.Count(log, "stack=") != 1 || !strings.Contains(log, in) {
		t.Errorf("the log has no stack with %s, or several:\n%s", in, log)
	}
}

// A panic while an archive arrives or a layer is inflated, which is a goroutine of its own, fails the import.
func TestPanicFailsImport(t *testing.T) {
	var log bytes.Buffer
	dir := t.TempDir()
	s := openStore(t, dir, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	archive := dockerArchive(picture{name: "app", layers: [][]byte{base, top}, pack: gzipped})
	for phase, in := range map[Phase]string{Receiving: "image.receive", Inflating: "image.(*layer).inflate"} {
		log.Reset()
		_, err := s.Import(t.Context(), bytes.NewReader(archive), ImportOptions{Size: int64(len(archive)), Progress: func(p Progress) {
			if p.Phase == phase && p.Done > 0 {
				panic("on purpose")
			}
		}})
		failsByPanic(t, err, log.String(), in)
		if left := filesIn(t, dir); len(left) > 0 {
			t.Errorf("%s: %v is left", phase, left)
		}
	}
	tellsTree(t, importLayers(t, s, base, top))
}

// A panic in a conversion fails who waits for it, with its stack in the log, also where the stack is another goroutine's.
func TestPanicFailsJob(t *testing.T) {
	var log bytes.Buffer
	s := openStore(t, t.TempDir(), Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	for name, l := range map[string]*layer{
		"image.inflateAll":      nil,
		"image.TestPanicFailsJ": {plain: "nowhere", early: &earlyTree{panic: caught(func() error { panic("on purpose") })}},
	} {
		log.Reset()
		st := must(newStaging(s.path(stagingDir)))
		c := &candidate{digest: "sha256:" + strings.Repeat("0", 64), layers: []*layer{l}}
		err := s.convertOnce(t.Context(), c, st, func(Progress) {})
		st.release()
		if l == nil { // it panics by itself
			err = errors.New(strings.ReplaceAll(err.Error(), "runtime error", "on purpose"))
		}
		failsByPanic(t, err, log.String(), name)
	}
	tellsTree(t, importLayers(t, s, base, top))
}

// A copier that panics fails the disk.
func TestPanicFailsDisk(t *testing.T) {
	layers := written(t, false, layerTar(file("a", string(randomBytes(10*pieceSize)))))
	f := must(os.Create(filepath.Join(t.TempDir(), "disk")))
	defer f.Close()
	err := flatten(t.Context(), layers, f, Limits{}.withDefaults(), func(p Progress) {
		if p.Done > 0 {
			panic("on purpose")
		}
	})
	p, ok := errors.AsType[*panicked](err)
	if !ok || !strings.Contains(string(p.stack), "image.(*diskFile).copy") {
		t.Errorf("the error is %v", err)
	}
}

// A badHash panics.
type badHash struct{ hash.Hash }

func (badHash) Write([]byte) (int, error) { panic("on purpose") }

// A side writer that panics has failed, however much more comes.
func TestPanicFailsSideWriter(t *testing.T) {
	f := must(os.Create(filepath.Join(t.TempDir(), "f")))
	defer f.Close()
	w := newSideWriter(f, nil)
	defer w.stop()
	w.h = badHash{w.h}
	for range 3 * sidePieces {
		_, _ = w.Write(make([]byte, sidePiece))
	}
	_, err := w.finish()
	if p, ok := errors.AsType[*panicked](err); !ok || !strings.Contains(string(p.stack), "image.(*sideWriter).run") {
		t.Errorf("the error is %v", err)
	}
}

// A badContext panics when it is asked.
type badContext struct{ context.Context }

func (badContext) Err() error { panic("on purpose") }

// A follower that panics harms nobody who lets bytes pass, and fails who takes its tree: that is no fault of the layer.
func TestPanicFailsFollower(t *testing.T) {
	b := newEarlyBudget()
	w := follow(badContext{t.Context()}, b)
	for range 3 {
		w.pass(top)
	}
	l := &layer{number: 1, plain: "nowhere", early: w.finish()}
	w.drop()
	_, err := stack(t.Context(), []*layer{l}, Limits{}.withDefaults())
	if _, refused := errors.AsType[*api.Error](err); !isPanic(err) || refused {
		t.Errorf("the error is %v", err)
	}
	if b.entries.Load() != 0 {
		t.Errorf("it left %d entries", b.entries.Load())
	}
	for _, err := range []error{fmt.Errorf("x: %w", err), &os.PathError{Op: "read", Path: "f", Err: errors.ErrUnsupported}} {
		if !ours(err) {
			t.Errorf("%v is told as a fault of what was brought", err)
		}
	}
}

// A panic while a layer is fetched, which is a goroutine of its own, fails the pull, and the next one fetches that layer.
func TestPanicFailsFetch(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	p := s.newPull("app", registry.Auth{}, pullRecord{}) // without a repository to fetch from
	b := member{size: 5, sha256: strings.Repeat("0", 64)}
	err := s.fetchLayers(p, &candidate{layers: []*layer{{number: 1, blob: b}}})
	if e, ok := errors.AsType[*panicked](err); !ok || !strings.Contains(string(e.stack), "image.(*Store).download") {
		t.Errorf("the error is %v", err)
	}
	if len(s.fetches) > 0 {
		t.Errorf("%d fetches go on", len(s.fetches))
	}
}
