package sink

import "io"

// NewLines is the stdout sink on another writer.
func NewLines(to io.Writer) Sink { return newLines(to) }
