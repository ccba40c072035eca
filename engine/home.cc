#include "engine/home.h"

#include <fcntl.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/call_on.h"
#include "engine/io/asio_stream.h"

namespace gabion::engine {
namespace {

int64_t WallClockMicroseconds() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::microseconds>(now).count();
}

}  // namespace

Home::Home(runtime::Shard& shard, runtime::WorkerPool& pool, const NbdOptions& options,
           Logger& logger)
    : shard_(shard),
      workers_(pool, shard.reactor()),
      options_(options),
      logger_(logger),
      slots_(options.max_connections),
      unix_door_(*this, /*tcp=*/false),
      tcp_door_(*this, /*tcp=*/true),
      export_turn_(shard.reactor().ready()),
      image_turn_(shard.reactor().ready()),
      tasks_(shard.reactor().ready()) {}

Home::~Home() { CHECK(closing_); }

void Home::Listen(io::ListenSocket socket, bool tcp) {
  listeners_.push_back(io::NewAsioListener(shard_.reactor(), std::move(socket),
                                           tcp ? tcp_door_ : unix_door_, logger_));
}

ShardServer& Home::ServerOf(const std::string& image_name) const {
  return *servers_[std::hash<std::string>()(image_name) % servers_.size()];
}

// ---- exports as clients see them

bool Home::Visible(const Known& known, bool tcp) {
  if (!known.published || !known.entry.enabled) return false;
  return !tcp || known.entry.transport == Transport::kPlaintextTcp;
}

Home::Known* Home::FindByWireName(const std::string& nbd_name) {
  const auto found = by_wire_name_.find(nbd_name);
  return found == by_wire_name_.end() ? nullptr : &exports_.at(found->second);
}

absl::StatusOr<nbd::ExportInfo> Home::Directory::Find(const std::string& name) {
  const Known* known = home_.FindByWireName(name);
  if (known == nullptr || !Visible(*known, tcp_)) return absl::NotFoundError("no such export");
  const uint32_t limit = known->entry.max_connections;
  if (limit > 0 && known->connections >= limit) {
    return absl::ResourceExhaustedError("the export has as many connections as it may have");
  }
  told_version_ = known->entry.version_id;
  return known->entry.info;
}

std::vector<nbd::ListedExport> Home::Directory::List(const std::string* after) {
  constexpr std::size_t kPart = 32;  // of at most 8 KiB each
  const auto& names = home_.by_wire_name_;
  std::vector<nbd::ListedExport> listed;
  auto next = after == nullptr ? names.begin() : names.upper_bound(*after);
  for (; next != names.end() && listed.size() < kPart; ++next) {
    const Known& known = home_.exports_.at(next->second);
    if (Visible(known, tcp_)) listed.push_back({next->first, known.entry.info.description});
  }
  return listed;
}

void Home::Publish(const std::string& export_name, Entry entry) {
  shard_.Post([this, export_name, entry = std::move(entry)]() mutable {
    const auto found = exports_.find(export_name);
    if (found == exports_.end()) return;  // deleted meanwhile
    found->second.entry = std::move(entry);
    found->second.published = true;
  });
}

void Home::ConnectionEnded(const std::string& export_name, uint64_t) {
  shard_.Post([this, export_name] { EndConnection(export_name); });
}

void Home::EndConnection(const std::string& export_name) {
  slots_.Give();
  const auto found = exports_.find(export_name);
  if (found != exports_.end() && found->second.connections > 0) --found->second.connections;
}

// ---- connections

void Home::Door::OnConnection(io::UniqueFd socket) {
  if (home_.closing_) return;
  if (home_.negotiating_.size() >= home_.options_.max_handshakes) {
    home_.logger_.Log(LogLevel::kWarning, "nbd",
                      "a connection was refused: too many handshakes are under way");
    return;
  }
  if (!home_.slots_.Take()) {
    home_.logger_.Log(LogLevel::kWarning, "nbd",
                      "a connection was refused: as many as allowed are open");
    return;
  }
  home_.tasks_.Add(home_.Receive(std::move(socket), tcp_));
}

Task<void> Home::Receive(io::UniqueFd socket, bool tcp) {
  // The export may live on another shard, where a second descriptor becomes another stream.
  io::UniqueFd second(fcntl(socket.get(), F_DUPFD_CLOEXEC, 0));
  std::unique_ptr<io::Stream> stream = io::NewAsioStream(shard_.reactor(), std::move(socket));
  const std::string peer = stream->peer();
  absl::Status status = absl::ResourceExhaustedError("out of file descriptors");
  if (second.valid()) {
    Directory directory(*this, tcp);
    negotiating_.push_back(stream.get());
    absl::StatusOr<nbd::NegotiationResult> result = co_await nbd::Negotiate(
        shard_.reactor(), *stream, nbd::HandshakeConfig{}, directory, options_.handshake_timeout);
    std::erase(negotiating_, stream.get());
    status = result.status();
    if (result.ok()) {
      status = HandOver(*std::move(result), directory.told_version(), std::move(second),
                        std::move(stream));
    }
  }
  if (status.ok()) co_return;
  logger_.Log(LogLevel::kInfo, "nbd", absl::StrCat(peer, ": ", status.message()));
  slots_.Give();
}

absl::Status Home::HandOver(nbd::NegotiationResult result, uint64_t told_version,
                            io::UniqueFd socket, std::unique_ptr<io::Stream> stream) {
  const auto found = by_wire_name_.find(result.negotiated.exported.name);
  if (closing_ || found == by_wire_name_.end()) {
    stream->Shutdown();
    return absl::NotFoundError("the export is gone");
  }
  const std::string& export_name = found->second;
  Known& known = exports_.at(export_name);
  if (!known.published) {
    stream->Shutdown();
    return absl::NotFoundError("the export is going away");
  }
  const uint32_t limit = known.entry.max_connections;
  if (limit > 0 && known.connections >= limit) {
    stream->Shutdown();
    return absl::ResourceExhaustedError("the export has as many connections as it may have");
  }
  ++known.connections;
  Arrival arrival;
  arrival.version_id = told_version;
  arrival.connection_id = next_connection_++;
  arrival.connect_time_us = WallClockMicroseconds();
  logger_.Log(LogLevel::kInfo, "nbd",
              absl::StrCat(stream->peer(), ": connection ", arrival.connection_id, " to '",
                           result.negotiated.exported.name, "'"));
  arrival.result = std::move(result);
  ShardServer& server = ServerOf(known.image_name);
  if (&server.shard() == &shard_) {
    server.Admit(export_name, std::move(arrival), std::move(stream));
    return absl::OkStatus();
  }
  stream.reset();
  server.shard().Post(
      [&server, export_name, arrival = std::move(arrival), socket = std::move(socket)]() mutable {
        server.Admit(export_name, std::move(arrival),
                     io::NewAsioStream(server.shard().reactor(), std::move(socket)));
      });
  return absl::OkStatus();
}

Task<void> Home::Close() {
  closing_ = true;
  for (auto& listener : listeners_) co_await listener->Stop();
  for (io::Stream* stream : negotiating_) stream->Shutdown();
  co_await tasks_.Drain();
}

}  // namespace gabion::engine
