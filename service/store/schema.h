// The schema of the SQLite store, and how older ones become it. Used by sqlite_store only.
#pragma once

#include "absl/status/status.h"
#include "service/store/sqlite.h"

namespace gabion::service {

// The schema version of this build (PRAGMA user_version).
int CurrentSchemaVersion();

// FAILED_PRECONDITION for a database of a newer Gabion or of another program. Changes nothing.
absl::Status CheckSchema(Database& database);

// Brings a new, current or older database to the current schema, one transaction for each version
// on the way. REQUIRES: CheckSchema() was OK.
absl::Status MigrateSchema(Database& database);

}  // namespace gabion::service
