// Digests of the blocks of a hash tree.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>

#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/filters/verity/hash_tree.h"

struct evp_md_ctx_st;

namespace gabion::verity {

// Blocks that do not have the digests that they should have.
struct Misfits {
  std::size_t count = 0;
  std::size_t first = 0;  // meaningless without one
};

// Owned by whoever hashes; one thread at a time. Borrows the tree.
class Hasher {
 public:
  explicit Hasher(const HashTree& tree);

  // kInternal if the library fails, as without memory.
  absl::StatusOr<Digest> Hash(Bytes block);

  // Looks at `bytes` as blocks of the same size, one for each of `expected`; those of which nothing
  // is expected are passed over.
  absl::StatusOr<Misfits> Compare(Bytes bytes, std::span<const std::optional<Digest>> expected);

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };

  const HashTree& tree_;
  const std::unique_ptr<evp_md_ctx_st, Free> context_;  // null if the library failed
};

}  // namespace gabion::verity
