// A client's view of the transmission phase: builds requests, cuts replies out of the bytes that
// come back, and fails the test where a reply breaks the protocol or what the export promises.
// Written from the protocol document and not with the engine's encoders.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace gabion::test {

struct NbdRequest {
  uint16_t command = 0;
  uint16_t flags = 0;
  uint64_t offset = 0;
  uint32_t length = 0;
  uint64_t cookie = 0;
};

// The header as it goes over the wire.
std::string RequestBytes(const NbdRequest& request);

struct NbdChunk {
  uint64_t offset = 0;
  uint64_t length = 0;
  bool hole = false;
};

struct NbdDescriptor {
  uint32_t length = 0;
  uint32_t status = 0;
  friend bool operator==(const NbdDescriptor&, const NbdDescriptor&) = default;
};

struct NbdReply {
  NbdRequest request;
  uint32_t error = 0;
  std::string message;
  std::string data;                                       // of a READ without error: all of it
  std::vector<NbdChunk> chunks;                           // in the order of arrival
  std::map<uint32_t, std::vector<NbdDescriptor>> status;  // by context id
};

// What every reply has to keep.
struct NbdPromises {
  bool structured = true;
  uint64_t granule = 1;
  uint64_t export_size = 0;
  uint64_t maximum_payload = 32 << 20;
  std::size_t contexts = 1;
};

// Owned by a test; one thread.
class NbdClient {
 public:
  explicit NbdClient(const NbdPromises& promises) : promises_(promises) {}

  // Notes the request, with a cookie of its own, and returns the bytes to send for it.
  std::string Request(NbdRequest request, std::string_view payload = "");
  uint64_t last_cookie() const { return next_cookie_ - 1; }

  // Takes what has been received. Complete replies are added to replies().
  void Receive(std::string_view bytes);

  std::map<uint64_t, NbdReply>& replies() { return replies_; }  // by cookie
  // Requests without a complete reply.
  std::size_t outstanding() const { return pending_.size(); }
  // Bytes of a reply that is not complete.
  std::size_t leftover() const { return held_.size(); }

 private:
  // These return how many bytes they took, 0 if there are not enough yet.
  std::size_t TakeReply();
  std::size_t TakeSimple();
  std::size_t TakeChunk();
  void TakeData(NbdReply& reply, uint64_t offset, uint64_t length, bool hole);
  void TakeStatus(NbdReply& reply, std::string_view payload);
  void TakeError(NbdReply& reply, std::string_view payload, bool with_offset);
  void TakePayload(NbdReply& reply, uint16_t type, std::string_view payload);
  void Complete(uint64_t cookie);
  void CheckBoundary(const NbdRequest& request, uint64_t at) const;
  void CheckCovered(const NbdReply& reply) const;
  void CheckDescriptors(const NbdReply& reply, const std::vector<NbdDescriptor>& list) const;

  const NbdPromises promises_;
  std::map<uint64_t, NbdReply> pending_;
  std::map<uint64_t, NbdReply> replies_;
  std::string held_;           // bytes of replies that are not complete yet
  std::string_view received_;  // while Receive() runs: what of them is left
  uint64_t next_cookie_ = 0x1000;
};

}  // namespace gabion::test
