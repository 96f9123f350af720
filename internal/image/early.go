package image

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync/atomic"
)

// What the trees of one image or archive may hold that are made before it is known that they are needed. It is the bound of their
// memory, at most some 40 MB: a layer that has more is read once more when its turn has come.
const (
	earlyEntries = 50_000
	earlyNames   = 8 << 20
)

func newEarlyBudget() *budget {
	return &budget{limits: Limits{Entries: earlyEntries, Names: earlyNames}}
}

// An earlyTree is the tree of a layer, made while the layer arrived. There may be none, and it is taken once.
type earlyTree struct {
	tree  atomic.Pointer[layerTree]
	panic error // with which there is none, and the layer cannot be used
}

// take returns the tree, as that of the layer with this index, and charges b with it; nil where there is none.
func (e *earlyTree) take(index int, b *budget) (*layerTree, error) {
	if e == nil {
		return nil, nil
	}
	t := e.tree.Swap(nil)
	if e.panic != nil {
		return nil, e.panic
	}
	if t == nil {
		return nil, nil
	}
	t.index, t.budget = index, b
	t.root.belongTo(index)
	if err := b.take(t.entries, t.names); err != nil {
		return t, err
	}
	return t, b.walk(t.steps)
}

// belongTo says of what layer the files below dir are.
func (dir *inode) belongTo(layer int) {
	for _, n := range dir.entries {
		n.layer = layer
		n.belongTo(layer)
	}
}

// A follower reads the entries of a layer as its bytes pass: it goes on whenever there are more, and is no goroutine. What goes wrong is no
// matter: the layer is read again by who needs it, and says so. Only a panic is kept for who takes the tree.
type follower struct {
	resume func() (struct{}, bool)
	stop   func()
	pause  func(struct{}) bool
	tree   *layerTree
	panic  error

	piece []byte // what passes
	end   int64  // of it, in the layer
	pos   int64  // what is read next
	whole bool   // nothing comes after it
}

var errUnfinished = errors.New("the layer does not arrive any more")

// follow begins. The follower is to be ended with finish or drop.
func follow(ctx context.Context, b *budget) *follower {
	w := &follower{}
	w.resume, w.stop = iter.Pull(func(pause func(struct{}) bool) {
		w.pause = pause
		t := newLayerTree(0, b)
		if err := caught(func() error { return readEntries(ctx, w, t.add) }); err != nil {
			_ = b.take(-t.entries, -t.names)
			if isPanic(err) {
				w.panic = err
			}
			return
		}
		w.tree = t
	})
	return w
}

// pass lets the next bytes of the layer pass, which may be read for as long as the call lasts.
func (w *follower) pass(b []byte) {
	w.piece, w.end = b, w.end+int64(len(b))
	w.resume()
}

// Read pauses until there is something to be read.
func (w *follower) Read(b []byte) (int, error) {
	for w.pos >= w.end {
		if w.whole {
			return 0, io.EOF
		}
		if !w.pause(struct{}{}) {
			return 0, errUnfinished
		}
	}
	n := copy(b, w.piece[int64(len(w.piece))-(w.end-w.pos):])
	w.pos += int64(n)
	return n, nil
}

// Seek lets content pass that nobody reads.
func (w *follower) Seek(offset int64, whence int) (int64, error) {
	return seekOn(&w.pos, offset, whence)
}

// finish returns the tree; everything has passed.
func (w *follower) finish() *earlyTree {
	w.whole = true
	w.resume()
	e := &earlyTree{panic: w.panic}
	e.tree.Store(w.tree)
	return e
}

// drop ends what finish did not.
func (w *follower) drop() { w.stop() }
