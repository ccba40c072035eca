#include "tests/support/nbd_client.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "engine/base/bytes.h"

namespace gabion::test {
namespace {

constexpr uint16_t kRead = 0, kBlockStatus = 7;
constexpr uint16_t kDf = 4, kReqOne = 8;

std::string Be(uint64_t value, int bytes) {
  std::string out;
  for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>(value >> shift));
  }
  return out;
}

uint16_t Be16(std::string_view bytes, std::size_t at) { return LoadBe16(&AsBytes(bytes)[at]); }
uint32_t Be32(std::string_view bytes, std::size_t at) { return LoadBe32(&AsBytes(bytes)[at]); }
uint64_t Be64(std::string_view bytes, std::size_t at) { return LoadBe64(&AsBytes(bytes)[at]); }

std::string Show(const NbdRequest& request) {
  return "command " + std::to_string(request.command) + " flags " + std::to_string(request.flags) +
         " offset " + std::to_string(request.offset) + " length " + std::to_string(request.length);
}

}  // namespace

std::string RequestBytes(const NbdRequest& request) {
  return Be(0x25609513, 4) + Be(request.flags, 2) + Be(request.command, 2) + Be(request.cookie, 8) +
         Be(request.offset, 8) + Be(request.length, 4);
}

std::string NbdClient::Request(NbdRequest request, std::string_view payload) {
  request.cookie = next_cookie_++;
  NbdReply& reply = pending_[request.cookie];
  reply.request = request;
  return RequestBytes(request) + std::string(payload);
}

void NbdClient::Receive(std::string_view bytes) {
  held_.append(bytes);
  received_ = held_;
  while (!received_.empty()) {
    const std::size_t used = TakeReply();
    if (used == 0) break;
    received_.remove_prefix(used);
  }
  held_.erase(0, held_.size() - received_.size());
}

std::size_t NbdClient::TakeReply() {
  if (received_.size() < 4) return 0;
  const uint32_t magic = Be32(received_, 0);
  if (magic == 0x67446698) return TakeSimple();
  if (magic == 0x668e33ef) return TakeChunk();
  ADD_FAILURE() << "not a reply: magic " << magic;
  return received_.size();
}

std::size_t NbdClient::TakeSimple() {
  if (received_.size() < 16) return 0;
  const uint64_t cookie = Be64(received_, 8);
  const auto found = pending_.find(cookie);
  if (found == pending_.end()) {
    ADD_FAILURE() << "a reply that nobody asked for: cookie " << cookie;
    return received_.size();
  }
  NbdReply& reply = found->second;
  reply.error = Be32(received_, 4);
  const bool with_data = reply.request.command == kRead && reply.error == 0;
  if (promises_.structured) {
    EXPECT_NE(reply.request.command, kRead) << "a simple reply to READ";
  }
  const std::size_t length = with_data ? reply.request.length : 0;
  if (received_.size() < 16 + length) return 0;
  reply.data = received_.substr(16, length);
  Complete(cookie);
  return 16 + length;
}

std::size_t NbdClient::TakeChunk() {
  if (received_.size() < 20) return 0;
  EXPECT_TRUE(promises_.structured);
  const uint16_t flags = Be16(received_, 4);
  const uint16_t type = Be16(received_, 6);
  const uint64_t cookie = Be64(received_, 8);
  const std::size_t length = Be32(received_, 16);
  EXPECT_EQ(flags & ~1, 0);
  if (received_.size() < 20 + length) return 0;
  const auto found = pending_.find(cookie);
  if (found == pending_.end()) {
    ADD_FAILURE() << "a chunk that nobody asked for: cookie " << cookie;
    return received_.size();
  }
  TakePayload(found->second, type, received_.substr(20, length));
  if (type == 0) {
    EXPECT_EQ(flags, 1);
  }
  if (flags & 1) Complete(cookie);
  return 20 + length;
}

void NbdClient::TakePayload(NbdReply& reply, uint16_t type, std::string_view payload) {
  SCOPED_TRACE(Show(reply.request));
  switch (type) {
    case 0:
      EXPECT_EQ(payload.size(), 0u);
      return;
    case 1: {
      ASSERT_GT(payload.size(), 8u);
      EXPECT_LE(payload.size() - 8, promises_.maximum_payload);
      const uint64_t offset = Be64(payload, 0);
      TakeData(reply, offset, payload.size() - 8, false);
      const uint64_t at = offset - reply.request.offset;
      if (reply.data.size() < at + payload.size() - 8) reply.data.resize(at + payload.size() - 8);
      reply.data.replace(at, payload.size() - 8, payload.substr(8));
      return;
    }
    case 2: {
      ASSERT_EQ(payload.size(), 12u);
      const uint64_t offset = Be64(payload, 0);
      TakeData(reply, offset, Be32(payload, 8), true);
      const uint64_t end = offset - reply.request.offset + Be32(payload, 8);
      if (reply.data.size() < end) reply.data.resize(end);
      return;
    }
    case 5:
      return TakeStatus(reply, payload);
    case 0x8001:
    case 0x8002:
      return TakeError(reply, payload, type == 0x8002);
    default:
      ADD_FAILURE() << "chunk type " << type;
  }
}

void NbdClient::TakeData(NbdReply& reply, uint64_t offset, uint64_t length, bool hole) {
  const NbdRequest& request = reply.request;
  ASSERT_EQ(request.command, kRead);
  ASSERT_GT(length, 0u);
  ASSERT_GE(offset, request.offset);
  ASSERT_LE(offset + length, request.offset + request.length);
  for (const NbdChunk& other : reply.chunks) {
    EXPECT_TRUE(offset + length <= other.offset || other.offset + other.length <= offset);
  }
  if (request.flags & kDf) {
    EXPECT_TRUE(reply.chunks.empty()) << "a second chunk in spite of DF";
  }
  CheckBoundary(request, offset);
  CheckBoundary(request, offset + length);
  reply.chunks.push_back({offset, length, hole});
}

// Boundaries within a request are multiples of the granule.
void NbdClient::CheckBoundary(const NbdRequest& request, uint64_t at) const {
  if (at == request.offset || at == request.offset + request.length) return;
  EXPECT_EQ(at % promises_.granule, 0u) << "boundary at " << at;
}

void NbdClient::TakeStatus(NbdReply& reply, std::string_view payload) {
  ASSERT_EQ(reply.request.command, kBlockStatus);
  ASSERT_GE(payload.size(), 12u) << "at least one descriptor";
  ASSERT_EQ((payload.size() - 4) % 8, 0u);
  const auto [list, added] = reply.status.try_emplace(Be32(payload, 0));
  ASSERT_TRUE(added) << "a second chunk for a context";
  for (std::size_t at = 4; at < payload.size(); at += 8) {
    list->second.push_back({Be32(payload, at), Be32(payload, at + 4)});
  }
  CheckDescriptors(reply, list->second);
}

// Status rules S-11 to S-18.
void NbdClient::CheckDescriptors(const NbdReply& reply,
                                 const std::vector<NbdDescriptor>& list) const {
  const NbdRequest& request = reply.request;
  const uint64_t granule = promises_.granule;
  const uint64_t end = request.offset + request.length;
  EXPECT_LE(list.size(), std::size_t{1} << 20);
  uint64_t at = request.offset;
  for (std::size_t i = 0; i < list.size(); ++i) {
    EXPECT_GT(list[i].length, 0u);
    EXPECT_LE(list[i].length, 0xffff0000u);
    EXPECT_LT(at, end) << "a descriptor behind the request";
    EXPECT_NE(list[i].status, 1u) << "a bare hole";
    if (i > 0) {
      EXPECT_EQ(at % granule, 0u);
    }
    at += list[i].length;
  }
  EXPECT_LE(at, promises_.export_size);
  EXPECT_LE(at, (end + granule - 1) / granule * granule) << "looks ahead more than one unit";
  const bool aligned = request.offset % granule == 0 && request.length % granule == 0;
  if (aligned) {
    EXPECT_EQ(at % granule, 0u);
  }
  if ((request.flags & kReqOne) == 0) return;
  EXPECT_EQ(list.size(), 1u);
  EXPECT_LE(at, end);
}

void NbdClient::TakeError(NbdReply& reply, std::string_view payload, bool with_offset) {
  ASSERT_GE(payload.size(), with_offset ? 14u : 6u);
  reply.error = Be32(payload, 0);
  EXPECT_NE(reply.error, 0u);
  const std::size_t length = Be16(payload, 4);
  ASSERT_EQ(payload.size(), 6 + length + (with_offset ? 8 : 0));
  EXPECT_LE(length, 4096u);
  reply.message = payload.substr(6, length);
}

void NbdClient::Complete(uint64_t cookie) {
  auto node = pending_.extract(cookie);
  NbdReply& reply = node.mapped();
  if (reply.error == 0) CheckCovered(reply);
  replies_.insert(std::move(node));
}

void NbdClient::CheckCovered(const NbdReply& reply) const {
  SCOPED_TRACE(Show(reply.request));
  if (reply.request.command == kRead && promises_.structured) {
    uint64_t covered = 0;
    for (const NbdChunk& chunk : reply.chunks) covered += chunk.length;
    EXPECT_EQ(covered, reply.request.length);
    EXPECT_EQ(reply.data.size(), reply.request.length);
  }
  if (reply.request.command == kBlockStatus) {
    EXPECT_EQ(reply.status.size(), promises_.contexts);
  }
}

}  // namespace gabion::test
