#include "engine/secret_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/io/errno_status.h"

namespace gabion::engine {
namespace {

constexpr std::size_t kLongest = kMiB;

}  // namespace

absl::StatusOr<Secret> ReadSecretFile(const io::Directory& secrets, std::string_view name) {
  if (name.find('/') != std::string_view::npos || name == "." || name == "..") {
    return absl::InvalidArgumentError("a secret is named by a plain file name, without '/'");
  }
  absl::StatusOr<io::UniqueFd> file = secrets.Open(name, {});
  if (absl::IsNotFound(file.status())) {
    return absl::NotFoundError("there is no such file in the directory of secrets");
  }
  if (absl::IsPermissionDenied(file.status())) {
    return absl::PermissionDeniedError("the file is a symbolic link, or may not be read");
  }
  if (!file.ok()) return file.status();
  struct stat details;
  if (fstat(file->get(), &details) != 0) return io::ErrnoStatus(errno, "fstat");
  if (!S_ISREG(details.st_mode)) return absl::InvalidArgumentError("not a regular file");
  Secret secret(kLongest + 1);
  std::size_t length = 0;
  while (length < secret.size()) {
    const MutableBytes rest = secret.bytes().subspan(length);
    const ssize_t got = read(file->get(), rest.data(), rest.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return io::ErrnoStatus(errno, "read");
    if (got == 0) break;
    length += static_cast<std::size_t>(got);
  }
  if (length == 0) return absl::InvalidArgumentError("the file is empty");
  if (length > kLongest) return absl::InvalidArgumentError("the file is longer than 1 MiB");
  secret.Shorten(length);
  return secret;
}

}  // namespace gabion::engine
