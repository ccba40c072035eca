// The handshake of one connection over its stream, under a deadline.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/log.h"
#include "engine/io/stream.h"
#include "engine/nbd/protocol/handshake.h"
#include "engine/runtime/reactor.h"
#include "engine/runtime/task.h"

namespace gabion::nbd {

// What a listener's handshakes look exports up in, as one kind of client may see them. Owned by the
// engine; used on the listener's shard.
class ExportDirectory {
 public:
  // `name`: as the client wrote it. Errors as Handshake::ProvideExport() takes them.
  virtual absl::StatusOr<ExportInfo> Find(const std::string& name) = 0;
  // Some exports, in the order of their names, that come after the one called `after`, or from the
  // first (null); none when there are no more. So few that they may be held for every client that
  // asks.
  virtual std::vector<ListedExport> List(const std::string* after) = 0;

 protected:
  ~ExportDirectory() = default;
};

struct NegotiationResult {
  Negotiated negotiated;
  std::string leftover;  // bytes that the client sent behind the handshake: requests
};

// Talks until the client has chosen an export. An error means that the connection is over, by
// whatever side, with the reason for the log. The stream, the directory and the reactor outlive the
// task.
Task<absl::StatusOr<NegotiationResult>> Negotiate(runtime::Reactor& reactor, io::Stream& stream,
                                                  HandshakeConfig config,
                                                  ExportDirectory& directory,
                                                  runtime::Duration timeout);

}  // namespace gabion::nbd
