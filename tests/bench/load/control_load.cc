// Puts load on a daemon's control plane and prints what it took, one JSON object a run. See usage.
#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "gabion/v1/export.grpc.pb.h"
#include "gabion/v1/image.grpc.pb.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"

namespace gabion::bench {
namespace {

using Clock = std::chrono::steady_clock;
using Micros = std::chrono::duration<double, std::micro>;

constexpr std::string_view kUsage =
    R"(Usage: control_load SERVER exports IMAGE CLIENTS SECONDS
         each client creates, gets and deletes exports of IMAGE, one after another, for so long
       control_load SERVER create-images PREFIX COUNT CLIENTS
       control_load SERVER create-exports PREFIX COUNT CLIENTS
         of the images of that prefix, one each
       control_load SERVER list-images PAGE_SIZE
         all pages, each timed
SERVER is a gRPC target: unix:/path or HOST:PORT. Times are microseconds of one whole unit of work
as the client sees it. Exit status 1: a call failed.
)";

// What went wrong first.
class Failure {
 public:
  // False if `status` is an error.
  bool Check(const grpc::Status& status, std::string_view what) {
    if (status.ok()) return true;
    const std::lock_guard lock(mutex_);
    if (!failed_.exchange(true)) {
      std::fprintf(stderr, "control_load: %s: %d %s\n", std::string(what).c_str(),
                   static_cast<int>(status.error_code()), status.error_message().c_str());
    }
    return false;
  }
  bool failed() const { return failed_; }

 private:
  std::mutex mutex_;
  std::atomic<bool> failed_ = false;
};

double Percentile(const std::vector<double>& sorted, double part) {
  if (sorted.empty()) return 0;
  const auto rank = static_cast<std::size_t>(part * static_cast<double>(sorted.size() - 1) + 0.5);
  return sorted[rank];
}

void Print(std::vector<double> micros, int calls_each, double seconds) {
  std::sort(micros.begin(), micros.end());
  const double calls = static_cast<double>(micros.size()) * calls_each;
  std::printf(
      "{\"units\": %zu, \"calls_per_second\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, "
      "\"max_us\": %.1f, \"seconds\": %.3f}\n",
      micros.size(), seconds > 0 ? calls / seconds : 0.0, Percentile(micros, 0.50),
      Percentile(micros, 0.99), micros.empty() ? 0.0 : micros.back(), seconds);
}

// Runs `unit(client, number)` again and again on `clients` threads, each with a connection of its
// own, until it returns false; prints the times. The status of the program.
int Run(const std::string& server, int clients, int calls_each,
        const std::function<bool(const std::shared_ptr<grpc::Channel>&, int client, int number)>&
            unit) {
  std::vector<std::vector<double>> times(static_cast<std::size_t>(clients));
  std::vector<std::thread> threads;
  const Clock::time_point begin = Clock::now();
  for (int client = 0; client < clients; ++client) {
    threads.emplace_back([&, client] {
      grpc::ChannelArguments arguments;
      arguments.SetInt("grpc.client", client);  // or all would share one connection
      const auto channel =
          grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), arguments);
      for (int number = 0;; ++number) {
        const Clock::time_point start = Clock::now();
        if (!unit(channel, client, number)) return;
        times[static_cast<std::size_t>(client)].push_back(Micros(Clock::now() - start).count());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  std::vector<double> all;
  for (const auto& some : times) all.insert(all.end(), some.begin(), some.end());
  Print(std::move(all), calls_each, seconds);
  return 0;
}

int LoadExports(const std::string& server, const std::string& image, int clients, int seconds) {
  Failure failure;
  const Clock::time_point end = Clock::now() + std::chrono::seconds(seconds);
  Run(server, clients, 3, [&](const auto& channel, int client, int number) {
    if (Clock::now() >= end || failure.failed()) return false;
    const auto stub = v1::ExportService::NewStub(channel);
    const std::string id = "load-" + std::to_string(client) + "-" + std::to_string(number);
    v1::CreateExportRequest create;
    create.set_export_id(id);
    create.mutable_export_()->set_source(image);
    v1::Export made;
    grpc::ClientContext creating;
    if (!failure.Check(stub->CreateExport(&creating, create, &made), "CreateExport")) return false;
    v1::GetExportRequest get;
    get.set_name(made.name());
    grpc::ClientContext getting;
    if (!failure.Check(stub->GetExport(&getting, get, &made), "GetExport")) return false;
    v1::DeleteExportRequest remove;
    remove.set_name(made.name());
    google::longrunning::Operation removed;
    grpc::ClientContext deleting;
    return failure.Check(stub->DeleteExport(&deleting, remove, &removed), "DeleteExport");
  });
  return failure.failed() ? 1 : 0;
}

std::string Numbered(const std::string& prefix, int number) {
  std::string digits = std::to_string(number);
  digits.insert(0, 7 - std::min<std::size_t>(7, digits.size()), '0');
  return prefix + "-" + digits;
}

// `make(channel, id)` for COUNT ids.
int CreateMany(const std::string& server, const std::string& prefix, int count, int clients,
               const std::function<bool(const std::shared_ptr<grpc::Channel>&, const std::string&,
                                        Failure&)>& make) {
  Failure failure;
  std::atomic<int> next = 0;
  Run(server, clients, 1, [&](const auto& channel, int /*client*/, int /*number*/) {
    const int mine = next.fetch_add(1);
    return mine < count && !failure.failed() && make(channel, Numbered(prefix, mine), failure);
  });
  return failure.failed() ? 1 : 0;
}

bool MakeImage(const std::shared_ptr<grpc::Channel>& channel, const std::string& id,
               Failure& failure) {
  constexpr uint64_t kSize = uint64_t{64} << 20;
  v1::CreateImageRequest request;
  request.set_image_id(id);
  request.mutable_image()->mutable_raw();
  request.mutable_image()->set_virtual_size_bytes(kSize);
  google::longrunning::Operation operation;
  grpc::ClientContext context;
  return failure.Check(
      v1::ImageService::NewStub(channel)->CreateImage(&context, request, &operation),
      "CreateImage");
}

bool MakeExport(const std::shared_ptr<grpc::Channel>& channel, const std::string& id,
                Failure& failure) {
  v1::CreateExportRequest request;
  request.set_export_id(id);
  request.mutable_export_()->set_source("images/" + id);
  v1::Export made;
  grpc::ClientContext context;
  return failure.Check(v1::ExportService::NewStub(channel)->CreateExport(&context, request, &made),
                       "CreateExport");
}

int ListImages(const std::string& server, int page_size) {
  Failure failure;
  v1::ListImagesRequest request;
  request.set_page_size(page_size);
  bool more = true;
  int images = 0;
  Run(server, 1, 1, [&](const auto& channel, int /*client*/, int /*number*/) {
    if (!more) return false;
    v1::ListImagesResponse response;
    grpc::ClientContext context;
    const auto stub = v1::ImageService::NewStub(channel);
    if (!failure.Check(stub->ListImages(&context, request, &response), "ListImages")) return false;
    images += response.images_size();
    request.set_page_token(response.next_page_token());
    more = !response.next_page_token().empty();
    return true;
  });
  std::fprintf(stderr, "%d images\n", images);
  return failure.failed() ? 1 : 0;
}

// A number of at least 1; 0 if it is none.
int Count(const std::string& text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? value : 0;
}

int Main(const std::vector<std::string>& arguments) {
  const std::size_t count = arguments.size();
  const std::string command = count > 1 ? arguments[1] : "";
  if (command == "exports" && count == 5 && Count(arguments[3]) > 0 && Count(arguments[4]) > 0) {
    return LoadExports(arguments[0], arguments[2], Count(arguments[3]), Count(arguments[4]));
  }
  if (count == 5 && Count(arguments[3]) > 0 && Count(arguments[4]) > 0) {
    const int many = Count(arguments[3]);
    const int clients = Count(arguments[4]);
    if (command == "create-images") {
      return CreateMany(arguments[0], arguments[2], many, clients, MakeImage);
    }
    if (command == "create-exports") {
      return CreateMany(arguments[0], arguments[2], many, clients, MakeExport);
    }
  }
  if (command == "list-images" && count == 3 && Count(arguments[2]) > 0) {
    return ListImages(arguments[0], Count(arguments[2]));
  }
  std::fputs(std::string(kUsage).c_str(), stderr);
  return 2;
}

}  // namespace
}  // namespace gabion::bench

int main(int argc, char** argv) {
  return gabion::bench::Main(std::vector<std::string>(argv + 1, argv + argc));
}
