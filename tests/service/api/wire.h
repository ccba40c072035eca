// Calls of any method by its name, with bytes that need not be a request.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/impl/rpc_method.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/status.h"
#include "grpcpp/support/sync_stream.h"

namespace gabion::service {

struct WireAnswer {
  grpc::Status status;
  std::vector<std::string> messages;  // serialized
};

inline std::string BytesOf(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

// Makes one call of `method`, "package.Service/Method", whether it answers once or with a stream:
// on the wire they are alike. The call is left, as if it had ended well, behind `most` messages.
inline WireAnswer CallOnWire(grpc::Channel& channel, const std::string& method,
                             const std::string& request, std::size_t most) {
  grpc::ClientContext context;
  const std::string path = "/" + method;
  const grpc::internal::RpcMethod rpc(path.c_str(), grpc::internal::RpcMethod::SERVER_STREAMING);
  const grpc::Slice slice(request);
  const grpc::ByteBuffer sent(&slice, 1);
  const std::unique_ptr<grpc::ClientReader<grpc::ByteBuffer>> reader(
      grpc::internal::ClientReaderFactory<grpc::ByteBuffer>::Create(&channel, rpc, &context, sent));
  WireAnswer answer;
  grpc::ByteBuffer message;
  while (answer.messages.size() < most && reader->Read(&message)) {
    answer.messages.push_back(BytesOf(message));
    message.Clear();
  }
  const bool left = answer.messages.size() == most;
  if (left) context.TryCancel();
  const grpc::Status ended = reader->Finish();
  if (!left) answer.status = ended;
  return answer;
}

}  // namespace gabion::service
