package numbered

import (
	"bytes"
	"io"
	"testing"
)

func TestWhatIsChangedIsFound(t *testing.T) {
	whole, err := io.ReadAll(NewReader(3 * Block))
	if err != nil || len(whole) != 3*Block {
		t.Fatalf("%d bytes, %v", len(whole), err)
	}
	changed := bytes.Clone(whole)
	changed[2*Block+5000]++
	for name, tt := range map[string]struct {
		stream []byte
		right  bool
	}{
		"as it is":        {whole, true},
		"a byte changed":  {changed, false},
		"a byte lost":     {append(bytes.Clone(whole[:100]), whole[101:]...), false},
		"a byte doubled":  {append(bytes.Clone(whole[:101]), whole[100:]...), false},
		"a block lost":    {whole[Block:], false},
		"a block doubled": {append(bytes.Clone(whole[:Block]), whole...), false},
	} {
		var c Checker
		_, err := io.CopyBuffer(&c, struct{ io.Reader }{bytes.NewReader(tt.stream)}, make([]byte, 777))
		if (err == nil) != tt.right {
			t.Errorf("%s: %v", name, err)
		}
		if tt.right && c.Checked() != int64(len(whole)) {
			t.Errorf("%s: %d bytes are right", name, c.Checked())
		}
	}
}
