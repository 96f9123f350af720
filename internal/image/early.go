package image

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
)

// What the trees of one image or archive may hold that are made before it is known that they are needed. It is the bound of their
// memory, some 25 MB: a layer that has more is read once more when its turn has come.
const (
	earlyEntries = 50_000
	earlyNames   = 8 << 20
)

func newEarlyBudget() *budget {
	return &budget{limits: Limits{Entries: earlyEntries, Names: earlyNames}}
}

// An earlyTree is the tree of a layer, made while the layer was written to its file. There may be none, and it is taken once.
type earlyTree struct{ tree atomic.Pointer[layerTree] }

// take returns the tree, as that of the layer with this index, and charges b with it; nil where there is none.
func (e *earlyTree) take(index int, b *budget) (*layerTree, error) {
	if e == nil {
		return nil, nil
	}
	t := e.tree.Swap(nil)
	if t == nil {
		return nil, nil
	}
	t.index, t.budget = index, b
	t.root.belongTo(index)
	return t, b.take(t.entries, t.names)
}

// belongTo says of what layer the files below dir are.
func (dir *inode) belongTo(layer int) {
	for _, n := range dir.entries {
		n.layer = layer
		n.belongTo(layer)
	}
}

// A follower reads the entries of a layer in a file that another goroutine still writes. What goes wrong is no matter: the layer is
// read again by who needs it, and says so.
type follower struct {
	f    *os.File
	done chan struct{}
	tree *layerTree

	mu    sync.Mutex
	grown sync.Cond
	size  int64
	whole bool
	gone  bool
}

var errUnfinished = errors.New("the layer is not written any more")

// follow begins. The follower is to be ended with end or drop, before f is closed.
func follow(ctx context.Context, f *os.File, b *budget) *follower {
	w := &follower{f: f, done: make(chan struct{})}
	w.grown.L = &w.mu
	go func() {
		defer close(w.done)
		t := newLayerTree(0, b)
		if err := readEntries(ctx, w, t.add); err != nil {
			_ = b.take(-t.entries, -t.names)
			return
		}
		w.tree = t
	}()
	return w
}

// written says how much is there.
func (w *follower) written(size int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.size = size
	w.grown.Broadcast()
}

// ReadAt waits until all of b, or the end, is there.
func (w *follower) ReadAt(b []byte, at int64) (int, error) {
	w.mu.Lock()
	for !w.whole && !w.gone && w.size < at+int64(len(b)) {
		w.grown.Wait()
	}
	gone := w.gone
	w.mu.Unlock()
	if gone {
		return 0, errUnfinished
	}
	return w.f.ReadAt(b, at)
}

// end waits for the tree; everything is written.
func (w *follower) end() *earlyTree {
	w.mu.Lock()
	w.whole = true
	w.grown.Broadcast()
	w.mu.Unlock()
	<-w.done
	e := &earlyTree{}
	e.tree.Store(w.tree)
	return e
}

// drop ends what end did not.
func (w *follower) drop() {
	w.mu.Lock()
	w.gone = true
	w.grown.Broadcast()
	w.mu.Unlock()
	<-w.done
}

var _ io.ReaderAt = (*follower)(nil)
