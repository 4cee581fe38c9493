package wal

import (
	"context"
	"fmt"
	"strings"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// messagesSQL asks which functions that write logical messages everybody may call.
// Their arguments differ from version to version.
const messagesSQL = `SELECT to_json(p.oid::regprocedure::text)::text FROM pg_proc p
	WHERE p.proname = 'pg_logical_emit_message' AND p.pronamespace = 'pg_catalog'::regnamespace
	AND has_function_privilege('public', p.oid, 'EXECUTE') ORDER BY 1`

// judgeMessages says who may write messages, when they are read: a table is guarded by
// GRANT INSERT, a message by nothing unless somebody saw to it.
func (c *Conn) judgeMessages(ctx context.Context) ([]fault.Finding, error) {
	if c.config.MessagePrefix == "" {
		return nil, nil
	}
	open, err := fetch[string](ctx, c.pg, messagesSQL)
	if err != nil {
		return nil, fmt.Errorf("look who may write logical messages: %w", err)
	}
	f := findings{subject: "messages with prefix " + c.config.MessagePrefix}
	if len(open) > 0 {
		f.warning(CodeMessagesGrant, "every role of the database may write them, and so send events",
			fmt.Sprintf("run REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC, and GRANT it to the roles that publish", strings.Join(open, ", ")))
	}
	return f.orOK(CodeMessages, "only roles with a grant may write them"), nil
}
