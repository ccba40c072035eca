// Runs a Handshake the way a session does, against a fixed set of exports.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/nbd/protocol/handshake.h"
#include "tests/engine/nbd/protocol/wire_testing.h"

namespace gabion::nbd::testing {

using Step = Handshake::Step;

class HandshakeRunner {
 public:
  explicit HandshakeRunner(HandshakeConfig config = {}) : handshake_(config) {
    exports_["disk"] = DiskInfo();
    exports_[""] = DiskInfo();
    ExportInfo strict = DiskInfo();
    strict.name = "strict";
    strict.block_sizes.minimum = 4096;
    strict.refuse_silent_clients = true;
    exports_["strict"] = strict;
    exports_["draining"] = absl::UnavailableError("the server is shutting down");
    exports_["private"] = absl::PermissionDeniedError("your address is not allowed");
    exports_["full"] = absl::ResourceExhaustedError("too many connections");
    exports_["broken"] = absl::DataLossError("/secret/path: bad header");
    handshake_.Start(&greeting_);
  }

  static ExportInfo DiskInfo() {
    ExportInfo info;
    info.name = "disk";
    info.description = "a disk";
    info.traits.size = ByteCount{1000300};
    info.meta_contexts = {"base:allocation", "qemu:allocation-depth"};
    return info;
  }

  // Feeds `bytes` at once, answering what the handshake asks, until they are used or it is over.
  Step Feed(std::string_view bytes) {
    Bytes rest = AsBytes(bytes);
    do {
      size_t used = 0;
      step_ = handshake_.Consume(rest, &used, &out_);
      rest = rest.subspan(used);
      used_ += used;
      while (step_ == Step::kNeedExport || step_ == Step::kNeedList) step_ = Answer();
      peak_ = std::max(peak_, out_.size() - reported_);
      reported_ = out_.size();
    } while (step_ == Step::kContinue && !rest.empty());
    return step_;
  }

  std::string TakeOutput() {
    reported_ = 0;
    return std::exchange(out_, std::string());
  }
  std::vector<Reply> TakeReplies() { return ParseReplies(TakeOutput()); }

  const std::string& greeting() const { return greeting_; }
  Handshake& handshake() { return handshake_; }
  Step step() const { return step_; }
  size_t used() const { return used_; }  // bytes of all input that the handshake took
  size_t peak() const { return peak_; }  // the longest output between two calls
  const std::vector<std::string>& asked() const { return asked_; }  // export names looked up
  std::map<std::string, absl::StatusOr<ExportInfo>>& exports() { return exports_; }

 private:
  Step Answer() {
    if (step_ == Step::kNeedList) {
      std::vector<ListedExport> listed;
      for (const auto& [name, info] : exports_) {
        if (info.ok()) listed.push_back(ListedExport{name, info->description});
      }
      return handshake_.ProvideList(listed, &out_);
    }
    asked_.push_back(handshake_.wanted_export());
    const auto found = exports_.find(handshake_.wanted_export());
    if (found == exports_.end()) return handshake_.ProvideExport(absl::NotFoundError("no"), &out_);
    return handshake_.ProvideExport(found->second, &out_);
  }

  Handshake handshake_;
  std::map<std::string, absl::StatusOr<ExportInfo>> exports_;
  std::string greeting_, out_;
  std::vector<std::string> asked_;
  Step step_ = Step::kContinue;
  size_t used_ = 0, peak_ = 0, reported_ = 0;
};

inline std::string ClientFlags(uint32_t flags = 3) { return Be32(flags); }

}  // namespace gabion::nbd::testing
