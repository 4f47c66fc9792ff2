package wire

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
)

func TestTextRoundTripsAnyBytes(t *testing.T) {
	for _, s := range []string{"", "plain", "é日𝄞", "\xff", "a\x80b", "\xc3", "q\"\\\n\t\x01\x7f", "\xed\xa0\x80", "\xf0\x9f\x98"} {
		quoted := AppendQuoted(nil, s)
		if !json.Valid(quoted) {
			t.Errorf("%q is written as %s, which is not JSON", s, quoted)
		}
		var back struct{ V Text }
		if err := json.Unmarshal([]byte(`{"V":`+string(quoted)+`}`), &back); err != nil || string(back.V) != s {
			t.Errorf("%q came back as %q, %v (%s)", s, back.V, err, quoted)
		}
	}
}

func TestTextReadsWhatPythonWrites(t *testing.T) {
	for raw, want := range map[string]string{
		`"\udcff"`:               "\xff",
		`"a\udc80b"`:             "a\x80b",
		`"\ud834\udd1e"`:         "𝄞",
		`"\u00e9\/\b\f\n\r\t\""`: "é/\b\f\n\r\t\"",
		`"\udcc3\udca9"`:         "é",
	} {
		var got Text
		if err := json.Unmarshal([]byte(raw), &got); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v; want %q", raw, got, err, want)
		}
	}
}

func TestTextRefusesWhatStandsForNoBytes(t *testing.T) {
	for _, raw := range []string{`"\u0000"`, `"\ud800"`, `"\ud800x"`, `"\udc00"`, `"\udc7f"`, `"\udd00"`, `1`, `{}`, "\"\xff\""} {
		var got Text
		if err := json.Unmarshal([]byte(raw), &got); err == nil {
			t.Errorf("%q was taken as %q", raw, got)
		}
	}
}

func TestEnvKeepsNamesAndValues(t *testing.T) {
	var got struct{ Env Env }
	raw := `{"env": { "A" : "1" , "\udcfe":"\udcff","C":"{\"x\":\"}\"}" } }`
	if err := json.Unmarshal([]byte(raw), &got); err != nil {
		t.Fatal(err)
	}
	want := Env{{"A", "1"}, {"\xfe", "\xff"}, {"C", `{"x":"}"}`}}
	if len(got.Env) != len(want) {
		t.Fatalf("got %q", got.Env)
	}
	for i := range want {
		if got.Env[i] != want[i] {
			t.Errorf("got %q, want %q", got.Env[i], want[i])
		}
	}
	for _, raw := range []string{`{"env":[]}`, `{"env":{"A":1}}`, `{"env":"x"}`, `{"env":{"A":null}}`} {
		if err := json.Unmarshal([]byte(raw), &got); err == nil {
			t.Errorf("%s was taken", raw)
		}
	}
}

func TestObjectIsJSON(t *testing.T) {
	var o, empty Object
	o.Int("a", -1).Bool("b", true).Text("c", "\xff\"").IntOrNull("d", -1).Raw("e", []byte("[1]"))
	raw := o.Bytes()
	if want := `{"a":-1,"b":true,"c":"\udcff\"","d":null,"e":[1]}`; string(raw) != want {
		t.Errorf("got %s", raw)
	}
	if string(empty.Bytes()) != "{}" {
		t.Errorf("empty: %s", empty.Bytes())
	}
}

func TestHeaderLimits(t *testing.T) {
	raw := AppendHeader(nil, Data, 7, MaxPayload)
	h, err := ParseHeader(raw)
	if err != nil || h != (Header{MaxPayload, Data, 7}) {
		t.Errorf("got %+v, %v", h, err)
	}
	if _, err := ParseHeader(AppendHeader(nil, Data, 7, MaxPayload+1)); err == nil {
		t.Error("a payload over the limit was taken")
	}
	if _, err := ReadHeader(strings.NewReader("abc"), make([]byte, HeaderSize)); err != io.ErrUnexpectedEOF {
		t.Errorf("a cut header: %v", err)
	}
	if _, err := ReadHeader(strings.NewReader(""), make([]byte, HeaderSize)); err != io.EOF {
		t.Errorf("the end: %v", err)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(AppendFrame(nil, Open, 1, []byte(`{"op":"ping"}`)))
	f.Add(AppendHeader(nil, Credit, 0xffffffff, MaxPayload))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := bytes.NewReader(raw)
		scratch := make([]byte, HeaderSize)
		for {
			h, err := ReadHeader(r, scratch)
			if err != nil {
				return
			}
			if h.Length > MaxPayload {
				t.Fatalf("length %d", h.Length)
			}
			if again := AppendHeader(nil, h.Kind, h.Stream, h.Length); !bytes.Equal(again, scratch) {
				t.Fatalf("%x became %x", scratch, again)
			}
			if _, err := io.CopyN(io.Discard, r, int64(h.Length)); err != nil {
				return
			}
		}
	})
}

func FuzzText(f *testing.F) {
	f.Add([]byte("a\xffb"))
	f.Add([]byte(`"\udcff\ud834\udd1e"`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if bytes.IndexByte(raw, 0) < 0 {
			back, err := Unquote(AppendQuoted(nil, string(raw)))
			if err != nil || back != string(raw) {
				t.Fatalf("%q came back as %q, %v", raw, back, err)
			}
		}
		var text Text
		if json.Unmarshal(raw, &text) == nil && strings.IndexByte(string(text), 0) >= 0 {
			t.Fatal("a NUL got through")
		}
		var env Env
		json.Unmarshal(raw, &env)
		env.UnmarshalJSON(raw)
		text.UnmarshalJSON(raw)
	})
}
