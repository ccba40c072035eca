#include "engine/formats/qcow2/reclaimer.h"

#include <algorithm>

#include "absl/status/statusor.h"

namespace gabion::qcow2 {

Reclaimer::Reclaimer(Tables& tables, Allocator& allocator, Epochs& epochs)
    : tables_(tables), allocator_(allocator), epochs_(epochs), tasks_(tables.ready) {}

void Reclaimer::Add(uint64_t host_offset, uint64_t clusters) {
  const uint64_t first = tables_.geometry.ClusterOf(host_offset);
  for (uint64_t i = 0; i < clusters; ++i) waiting_.push_back(first + i);
}

void Reclaimer::PutBack(const std::vector<uint64_t>& clusters) {
  waiting_.insert(waiting_.end(), clusters.begin(), clusters.end());
}

void Reclaimer::Durable(std::vector<uint64_t> clusters) {
  if (clusters.empty()) return;
  durable_.insert(durable_.end(), clusters.begin(), clusters.end());
  if (!reclaiming_) tasks_.Add(Reclaim());
}

Task<void> Reclaimer::Reclaim() {
  reclaiming_ = true;
  while (!durable_.empty()) {
    std::vector<uint64_t> batch = std::exchange(durable_, {});
    co_await epochs_.Quiesce();
    co_await ReclaimBatch(std::move(batch));
  }
  reclaiming_ = false;
}

Task<void> Reclaimer::ReclaimBatch(std::vector<uint64_t> clusters) {
  std::sort(clusters.begin(), clusters.end());
  std::vector<uint64_t> unused;  // those that lose their last reference
  for (std::size_t i = 0; i < clusters.size();) {
    const uint64_t cluster = clusters[i];
    uint64_t references = 0;
    for (; i < clusters.size() && clusters[i] == cluster; ++i) ++references;
    const absl::StatusOr<uint64_t> count = co_await allocator_.Refcount(cluster);
    if (count.ok() && *count == references) unused.push_back(cluster);
  }
  co_await Punch(unused);
  const absl::Status released = co_await allocator_.Release(clusters);
  if (!released.ok()) tables_.warnings.push_back(std::string(released.message()));
}

Task<void> Reclaimer::Punch(const std::vector<uint64_t>& clusters) {
  const uint64_t bits = tables_.geometry.cluster_bits;
  for (std::size_t i = 0; i < clusters.size();) {
    const std::size_t first = i++;
    while (i < clusters.size() && clusters[i] == clusters[first] + (i - first)) ++i;
    const ByteRange range = Range(clusters[first] << bits, (i - first) << bits);
    const absl::Status punched = co_await tables_.file.Zero(range, io::ZeroMode::kPunch);
    if (!punched.ok()) co_return;  // the space stays with the file
  }
}

}  // namespace gabion::qcow2
