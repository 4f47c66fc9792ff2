package wire

import "strconv"

// Object builds a JSON object. Answers are written with it and not with encoding/json, because that cannot write the
// lone surrogates of Text and costs more than the command it reports.
type Object struct{ buf []byte }

func (o *Object) name(name string) {
	if len(o.buf) == 0 {
		o.buf = make([]byte, 0, 192)
		o.buf = append(o.buf, '{')
	} else {
		o.buf = append(o.buf, ',')
	}
	o.buf = append(o.buf, '"')
	o.buf = append(o.buf, name...)
	o.buf = append(o.buf, '"', ':')
}

// Int adds a number.
func (o *Object) Int(name string, v int64) *Object {
	o.name(name)
	o.buf = strconv.AppendInt(o.buf, v, 10)
	return o
}

// IntOrNull adds a number, or null when it is negative.
func (o *Object) IntOrNull(name string, v int64) *Object {
	if v < 0 {
		return o.Raw(name, []byte("null"))
	}
	return o.Int(name, v)
}

// Bool adds true or false.
func (o *Object) Bool(name string, v bool) *Object {
	o.name(name)
	o.buf = strconv.AppendBool(o.buf, v)
	return o
}

// Text adds a string of any bytes.
func (o *Object) Text(name, v string) *Object {
	o.name(name)
	o.buf = AppendQuoted(o.buf, v)
	return o
}

// Raw adds a value that is JSON already.
func (o *Object) Raw(name string, json []byte) *Object {
	o.name(name)
	o.buf = append(o.buf, json...)
	return o
}

// Bytes returns the finished object; nothing may be added afterwards.
func (o *Object) Bytes() []byte {
	if len(o.buf) == 0 {
		return []byte("{}")
	}
	return append(o.buf, '}')
}
