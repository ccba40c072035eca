// A connection in memory: the server's end is a Stream, the client's end belongs to the test, which
// also plays the network: cuts reads anywhere, stops reading, breaks.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <string_view>

#include "engine/io/stream.h"
#include "engine/runtime/event.h"
#include "engine/runtime/ready_queue.h"
#include "tests/support/random_source.h"

namespace gabion::test {

// Owned by a test, and outlives the stream; one thread.
class MemoryConnection {
 public:
  explicit MemoryConnection(runtime::ReadyQueue& ready);
  MemoryConnection(const MemoryConnection&) = delete;
  MemoryConnection& operator=(const MemoryConnection&) = delete;

  // The server's end; call once.
  std::unique_ptr<io::Stream> TakeStream();

  // From now on reads give short pieces and waits happen where they need not.
  void SetRandom(RandomSource& random) { random_ = &random; }

  // ---- what the client does
  void Send(std::string_view bytes);
  // No more will be sent: the server reads 0 behind what was sent.
  void CloseSending();
  // What has come from the server since the last call.
  std::string TakeReceived();
  // The server may write `bytes` more, then its writes wait: a client that does not read.
  void SetWindow(uint64_t bytes);
  void OpenWindow() { SetWindow(kNoLimit); }
  // The connection breaks when the server writes its byte number `bytes` from now.
  void FailWritesAfter(uint64_t bytes) { fail_after_ = bytes; }

  // ---- what the server has done
  std::size_t unread() const { return to_server_.size(); }
  uint64_t written() const { return written_; }  // bytes that it could write so far
  uint64_t write_calls() const { return write_calls_; }
  uint64_t read_calls() const { return read_calls_; }
  bool write_waits() const { return write_waits_; }
  bool read_shut() const { return read_shut_; }
  bool shut() const { return shut_; }            // both directions
  bool destroyed() const { return destroyed_; }  // the stream is gone

 private:
  class End;
  static constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();

  runtime::ReadyQueue& ready_;
  runtime::Signal changed_;
  RandomSource* random_ = nullptr;
  std::string to_server_;
  std::string to_client_;
  uint64_t window_ = kNoLimit;
  uint64_t fail_after_ = kNoLimit;
  uint64_t written_ = 0;
  uint64_t write_calls_ = 0;
  uint64_t read_calls_ = 0;
  bool write_waits_ = false;
  bool ended_ = false;
  bool read_shut_ = false;
  bool shut_ = false;
  bool broken_ = false;
  bool taken_ = false;
  bool destroyed_ = false;
};

}  // namespace gabion::test
