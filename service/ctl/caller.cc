#include "service/ctl/caller.h"

#include <memory>
#include <vector>

#include "grpcpp/completion_queue.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/byte_buffer.h"
#include "service/ctl/catalog.h"

namespace gabion::service::ctl {
namespace {

std::shared_ptr<grpc::Channel> Connect(const std::string& server) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);  // the daemon is near
  return grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), arguments);
}

grpc::ByteBuffer Encode(const google::protobuf::Message& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return {&slice, 1};
}

bool Decode(const grpc::ByteBuffer& buffer, google::protobuf::Message* message) {
  std::vector<grpc::Slice> slices;
  if (!buffer.Dump(&slices).ok()) return false;
  std::string bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return message->ParseFromString(bytes);
}

// One call on a completion queue of its own, step by step.
class Calling {
 public:
  Calling(const std::string& server, const std::string& path,
          std::optional<std::chrono::seconds> timeout)
      : stub_(Connect(server)) {
    if (timeout) context_.set_deadline(std::chrono::system_clock::now() + *timeout);
    stream_ = stub_.PrepareCall(&context_, path, &queue_);
  }

  bool Start() {
    stream_->StartCall(this);
    return Await();
  }
  bool Send(const grpc::ByteBuffer& request) {
    stream_->WriteLast(request, grpc::WriteOptions(), this);
    return Await();
  }
  bool Receive(grpc::ByteBuffer* response) {
    stream_->Read(response, this);
    return Await();
  }
  void Cancel() { context_.TryCancel(); }
  grpc::Status End() {
    grpc::Status status;
    stream_->Finish(&status, this);
    Await();
    return status;
  }

 private:
  // Waits for the one step that is under way; true if it succeeded.
  bool Await() {
    void* tag = nullptr;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }

  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
};

}  // namespace

grpc::Status Call(const std::string& server, const google::protobuf::MethodDescriptor& method,
                  const google::protobuf::Message& request,
                  std::optional<std::chrono::seconds> timeout,
                  const std::function<void(const google::protobuf::Message&)>& on_response) {
  const google::protobuf::Message* prototype =
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(method.output_type());
  Calling call(server, PathOf(method), timeout);
  // Where a step fails, the status of the call says why.
  if (!call.Start() || !call.Send(Encode(request))) return call.End();
  for (grpc::ByteBuffer response; call.Receive(&response); response.Clear()) {
    const std::unique_ptr<google::protobuf::Message> message(prototype->New());
    if (!Decode(response, message.get())) {
      call.Cancel();
      call.End();
      return {grpc::INTERNAL, "the answer is no " + method.output_type()->full_name()};
    }
    on_response(*message);
  }
  return call.End();
}

}  // namespace gabion::service::ctl
