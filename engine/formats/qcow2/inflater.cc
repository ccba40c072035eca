#include "engine/formats/qcow2/inflater.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/formats/qcow2/compression.h"

namespace gabion::qcow2 {
namespace {

constexpr uint64_t kKeptBytes = 4 * kMiB;
constexpr std::size_t kKeptAtLeast = 2;  // clusters

}  // namespace

Inflater::Inflater(Tables& tables, runtime::Workers* workers)
    : tables_(tables),
      workers_(workers),
      max_kept_(std::max<std::size_t>(kKeptBytes >> tables.geometry.cluster_bits, kKeptAtLeast)),
      loaded_(tables.ready) {}

bool Inflater::Copy(uint64_t entry, uint64_t in_cluster, MutableBytes dst) {
  const auto found = std::find_if(kept_.begin(), kept_.end(),
                                  [entry](const Kept& kept) { return kept.entry == entry; });
  if (found == kept_.end()) return false;
  std::memcpy(dst.data(), found->cluster.data() + in_cluster, dst.size());
  kept_.splice(kept_.begin(), kept_, found);
  return true;
}

Task<absl::Status> Inflater::Read(uint64_t entry, uint64_t in_cluster, MutableBytes dst) {
  while (!Copy(entry, in_cluster, dst)) {
    if (loading_.contains(entry)) {
      co_await loaded_.Wait();
      continue;
    }
    loading_.insert(entry);
    const absl::Status status = co_await Load(entry);
    loading_.erase(entry);
    loaded_.WakeAll();
    if (!status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Inflater::Load(uint64_t entry) {
  const Geometry& geometry = tables_.geometry;
  const uint64_t offset = geometry.CompressedOffset(entry);
  const uint64_t file_size = tables_.file.size().value;
  if (offset >= file_size) {
    co_return Damage(
        absl::StrCat("a compressed cluster lies past the end of the file, at ", offset));
  }
  const uint64_t length = std::min(geometry.CompressedBytes(entry), file_size - offset);
  std::vector<std::byte> compressed(length);
  const MutableBytes whole(compressed);
  CO_RETURN_IF_ERROR(co_await tables_.file.Read(ByteOffset{offset}, whole));
  std::vector<std::byte> cluster(geometry.cluster_size());
  const Compression how = geometry.compression;
  const auto inflate = [how, &compressed, &cluster] { return Inflate(how, compressed, cluster); };
  absl::Status status;
  if (workers_ == nullptr) {
    status = inflate();
  } else {
    status = co_await workers_->Run(inflate);
  }
  if (!status.ok()) {
    co_return Damage(absl::StrCat("compressed cluster at ", offset, ": ", status.message()));
  }
  if (kept_.size() >= max_kept_) kept_.pop_back();
  kept_.push_front({entry, std::move(cluster)});
  co_return absl::OkStatus();
}

}  // namespace gabion::qcow2
