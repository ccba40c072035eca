// Plays every scene of error_scenes.h for a caller that is another program: a server on a Unix
// socket, in front of the engine of the tests. Prints the socket's path; then, scene by scene, the
// reason, the method and the request that is answered with it, with tabs between them, and waits
// for a line that says that the call has been made. Ends with the scenes, or with its input.
#include <gtest/gtest.h>

#include <iostream>
#include <string>

#include "tests/service/api/error_scenes.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  using gabion::service::ErrorScene;
  gabion::service::ErrorStage stage;
  std::cout << stage.address() << std::endl;
  for (const ErrorScene& scene : gabion::service::ErrorScenes()) {
    scene.prepare(stage);
    std::cout << scene.reason.name << '\t' << scene.method << '\t' << stage.Fill(scene.request)
              << std::endl;
    std::string called;
    if (!std::getline(std::cin, called)) break;
    stage.Settle();
  }
  return 0;
}
