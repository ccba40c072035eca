// Secrets that an operator keeps in files.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/base/secret.h"
#include "engine/io/directory.h"

namespace gabion::engine {

// All bytes of the file `name` in `secrets` itself: 1 to 1 MiB of them. kInvalidArgument for what
// is no plain file name, no regular file, empty or longer; kPermissionDenied for symbolic links.
// No message has a path or the content. Blocks.
absl::StatusOr<Secret> ReadSecretFile(const io::Directory& secrets, std::string_view name);

}  // namespace gabion::engine
