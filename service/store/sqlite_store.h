// A MetadataStore in one SQLite file (WAL, synchronous=FULL). Commits that come at the same time
// share a wait for the disk; reads wait for none.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

// Opens or creates the store at `path` and checks all of it. While it is open, `path`.lock is
// locked, and a second process is refused.
// FAILED_PRECONDITION: in use by another process, of a newer Gabion, or another program's file.
// DATA_LOSS: damaged. PERMISSION_DENIED, UNAVAILABLE: cannot be opened.
absl::StatusOr<std::unique_ptr<MetadataStore>> OpenSqliteStore(const std::string& path);

}  // namespace gabion::service
