// Random requests to a node, many at a time, held against the model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/block/node.h"
#include "engine/runtime/task_set.h"
#include "tests/sim/content.h"
#include "tests/sim/model.h"
#include "tests/sim/sim_world.h"

namespace gabion::sim {

struct WorkloadOptions {
  uint64_t operations = 1000;
  std::size_t most_in_flight = 24;
  std::vector<ByteRange> windows;  // what the requests touch
  bool may_fail = false;           // the world has faults
};

// The requests of one session on one open image. Owned by a simulation; `world`, `model` and `node`
// outlive it. When the power fails, what is in flight comes to its end and is not judged, and the
// model is left as it was.
class Workload {
 public:
  Workload(SimWorld& world, Model& model, const Content& content, block::Node& node,
           const WorkloadOptions& options);

  // Issues the requests and waits for all of them; stops early after a finding or a crash.
  Task<void> Run();
  // Reads all windows and asks for the status of the whole disk. `lasting`: as CheckRead() says.
  Task<void> Verify(bool lasting);

  uint64_t issued() const { return issued_; }
  // What was wrong; empty if nothing was.
  const std::vector<std::string>& findings() const { return findings_; }

 private:
  enum class Kind { kRead, kWrite, kZero, kDiscard, kFlush, kStatus, kCache };

  bool Stopped() const { return world_.crashed() || !findings_.empty(); }
  Kind PickKind();
  ByteRange PickRange();
  ByteRange PickFresh();
  Task<void> Issue();

  Task<void> Read(ByteRange range, bool lasting);
  Task<void> Write(ByteRange range, bool durable, bool zeros);
  Task<void> Zero(ByteRange range, block::ZeroOptions options);
  Task<void> Discard(ByteRange range);
  Task<void> Flush();
  Task<void> Status(ByteRange range, std::size_t max_extents, uint64_t* covered);
  Task<void> Cache(ByteRange range);

  // Ends `op` in the model as `status` says.
  void End(OpId op, const absl::Status& status, bool durable, bool may_decline);
  void Judge(const absl::Status& verdict);
  void JudgeError(const char* what, const absl::Status& status);

  SimWorld& world_;
  Model& model_;
  const Content content_;
  block::Node& node_;
  const WorkloadOptions options_;
  std::vector<ByteRange> recent_;  // ranges of late, to collide with
  std::vector<std::string> findings_;
  uint64_t issued_ = 0;
  uint64_t answered_ = 0;
};

}  // namespace gabion::sim
