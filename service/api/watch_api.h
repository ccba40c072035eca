// Streams of changes. The gRPC side: it checks, hands on and answers; what is told is decided in
// service/domain/watcher.h.
#pragma once

#include <mutex>
#include <set>

#include "gabion/v1/watch.grpc.pb.h"
#include "service/api/call.h"
#include "service/domain/change_feed.h"
#include "service/domain/resource_views.h"
#include "service/store/metadata_store.h"
#include "service/timers.h"

namespace gabion::service {

class WatchStream;

// Where watches find what they tell. All of it outlives the server.
struct WatchSources {
  MetadataStore& store;
  ChangeFeed& feed;
  ResourceViews& views;
};

// gabion.v1.WatchService. Owned by the server; called on threads of gRPC, where it does not block.
class WatchApi final : public v1::WatchService::CallbackService {
 public:
  // `calls` and `timers` outlive this.
  WatchApi(Calls& calls, Timers& timers, WatchSources sources)
      : calls_(calls), timers_(timers), sources_(sources) {}

  grpc::ServerWriteReactor<v1::WatchResponse>* Watch(grpc::CallbackServerContext* context,
                                                     const v1::WatchRequest* request) override;

  // Ends all streams, and every later one, with DRAINING: a server does not stop while there are
  // any. One whose client does not take what it was sent is cut off a moment later. Any thread.
  void Drain();

 private:
  friend class WatchStream;

  void Forget(WatchStream* stream);

  Calls& calls_;
  Timers& timers_;
  const WatchSources sources_;
  std::mutex mutex_;  // guards what follows; taken before a stream's own
  std::set<WatchStream*> streams_;
  bool draining_ = false;
};

}  // namespace gabion::service
