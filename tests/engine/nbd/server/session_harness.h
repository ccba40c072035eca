// Sessions on a real loop, driven by hand, with a client in memory.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "engine/nbd/protocol/handshake.h"
#include "engine/nbd/server/session.h"
#include "engine/runtime/buffer_pool.h"
#include "engine/runtime/reactor.h"
#include "tests/support/memory_node.h"
#include "tests/support/memory_stream.h"
#include "tests/support/nbd_client.h"

namespace gabion::nbd::testing {

inline constexpr uint16_t kCmdRead = 0, kCmdWrite = 1, kCmdDisc = 2, kCmdFlush = 3, kCmdTrim = 4,
                          kCmdCache = 5, kCmdZeroes = 6, kCmdStatus = 7;
inline constexpr uint16_t kFua = 1, kNoHole = 2, kDf = 4, kReqOne = 8, kFastZero = 16;

// What the sessions of a shard share.
struct Loop {
  explicit Loop(uint64_t shared_bytes = kGiB, uint64_t own_bytes = 0)
      : budget(reactor.ready(), shared_bytes, own_bytes),
        environment{reactor, buffers, budget, NullLogger()} {}

  // Runs until nothing happens any more without the outside.
  void Settle() {
    while (reactor.RunTurn(false)) {
    }
  }
  // Runs until `condition`, for things that only time brings about.
  template <typename F>
  void RunUntil(F condition) {
    while (!condition()) reactor.RunTurn(false);
  }

  runtime::Reactor reactor{{.poll_before_sleep = std::chrono::microseconds(0)}};
  runtime::BufferPool buffers{ByteCount{kMiB}};
  ByteBudget budget;
  SessionEnvironment environment;
};

struct Terms {
  uint64_t size = 64 * kKiB;
  SessionLimits limits;
  SessionPolicy policy;
  uint32_t maximum_payload = 32 * kMiB;
  bool structured = true;
  bool meta = true;
  bool sizes_requested = true;
  bool read_only = false;
  bool can_fast_zero = true;
};

inline Negotiated NegotiatedOf(const Terms& terms) {
  Negotiated negotiated;
  ExportTraits& traits = negotiated.exported.traits;
  traits.size = ByteCount{terms.size};
  traits.read_only = terms.read_only;
  traits.can_fast_zero = terms.can_fast_zero;
  negotiated.exported.block_sizes.minimum = terms.policy.granule;
  negotiated.exported.block_sizes.maximum_payload = terms.maximum_payload;
  negotiated.structured = terms.structured;
  negotiated.block_sizes_requested = terms.sizes_requested;
  negotiated.transmission_flags = TransmissionFlags(traits, terms.structured);
  if (terms.meta) negotiated.meta_contexts = {{1, "base:allocation"}};
  return negotiated;
}

inline test::NbdPromises PromisesOf(const Terms& terms) {
  return {.structured = terms.structured,
          .granule = terms.policy.granule,
          .export_size = terms.size,
          .maximum_payload = terms.maximum_payload,
          .contexts = terms.meta ? 1u : 0u};
}

// A session and its client.
class Connected {
 public:
  Connected(Loop& loop, const Terms& terms, block::Node& root, runtime::Turnstile& gate,
            std::string leftover = "")
      : loop_(loop),
        connection(loop.reactor.ready()),
        client(PromisesOf(terms)),
        session(std::make_unique<Session>(loop.environment, terms.limits, terms.policy,
                                          NegotiatedOf(terms), root, gate,
                                          connection.TakeStream())),
        run_(session->Run(std::move(leftover))) {}

  ~Connected() {
    connection.OpenWindow();
    session->Close();
    while (!done()) loop_.reactor.RunTurn(false);
  }

  bool done() const { return run_.done(); }

  void Send(test::NbdRequest request, std::string_view payload = "") {
    connection.Send(client.Request(request, payload));
  }
  // Runs until it is quiet, and takes what has come.
  void Settle() {
    loop_.Settle();
    client.Receive(connection.TakeReceived());
  }
  // Sends one request and waits for its reply.
  test::NbdReply Call(test::NbdRequest request, std::string_view payload = "") {
    Send(request, payload);
    const uint64_t cookie = client.last_cookie();
    Settle();
    const auto found = client.replies().find(cookie);
    if (found == client.replies().end()) {
      ADD_FAILURE() << "no reply";
      return {};
    }
    return found->second;
  }

 private:
  Loop& loop_;

 public:
  test::MemoryConnection connection;
  test::NbdClient client;
  std::unique_ptr<Session> session;

 private:
  Task<void> run_;
};

// A loop, a disk and one connection to it.
class SessionTest : public ::testing::Test {
 protected:
  void Build(const Terms& terms = {}, test::MemoryNodeOptions disk = {}) {
    disk.size = terms.size;
    node_ = std::make_unique<test::MemoryNode>(disk);
    c_ = std::make_unique<Connected>(loop_, terms, *node_, gate_);
  }
  // Ends the session, if it has not ended, and looks for what must be left of it: nothing.
  void TearDown() override {
    if (gate_.held()) gate_.Resume();
    c_.reset();
    EXPECT_EQ(loop_.budget.used(), 0u);
    EXPECT_EQ(gate_.inside(), 0u);
    if (node_ != nullptr) {
      EXPECT_EQ(node_->in_flight(), 0);
    }
  }

  Loop loop_;
  runtime::Turnstile gate_{loop_.reactor.ready()};
  std::unique_ptr<test::MemoryNode> node_;
  std::unique_ptr<Connected> c_;
};

}  // namespace gabion::nbd::testing
