package instance

import (
	"net/netip"

	"github.com/halevm/hale/internal/event"
	"github.com/halevm/hale/internal/store"
)

// RecordFile is what a daemon that crashed may have left: the record of i, prepared when the log's newest event was seen.
func RecordFile(i Instance, img Image, seen event.ID, deleting bool) ([]byte, error) {
	r := record{Instance: i, Image: img, Seen: seen, Deleting: deleting}
	if i.IP != "" {
		r.Addr = netip.PrefixFrom(netip.MustParseAddr(i.IP), 16)
	}
	return store.EncodeJSON(recordVersion, r)
}

// Unreachable has everything refused in the instances' directory until back is called.
func (s *Set) Unreachable() (back func() error) {
	dir := s.store.Path(".")
	s.store.Close()
	return func() (err error) {
		s.store, err = store.Open(dir)
		return err
	}
}
