#include "engine/runtime/shard.h"

#include <pthread.h>
#include <signal.h>

#include <utility>

#include "engine/base/check.h"

namespace gabion::runtime {

Shard::Shard(std::string name, Options options)
    : reactor_(options.reactor), buffers_(options.cached_buffers), mailbox_(reactor_) {
  CHECK_LE(name.size(), 15u);
  thread_ = std::thread([this, name = std::move(name)] {
    pthread_setname_np(pthread_self(), name.c_str());
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);  // signals are the main thread's business
    reactor_.Run();
  });
}

Shard::~Shard() { CHECK(!thread_.joinable()); }

void Shard::Stop() {
  Post([this] { reactor_.Stop(); });
  thread_.join();
}

}  // namespace gabion::runtime
