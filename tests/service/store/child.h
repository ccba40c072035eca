// A process of a test's own, to be killed.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

namespace gabion::service {

// Runs `body` in a child that may report bytes through the pipe; the child never returns.
struct Child {
  pid_t pid;
  int from;

  static Child Start(const std::function<void(int to_parent)>& body) {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    const pid_t pid = fork();
    if (pid == 0) {
      close(ends[0]);
      body(ends[1]);
      _exit(0);
    }
    close(ends[1]);
    return {pid, ends[0]};
  }
  // Waits for one byte of the child; false at its end.
  bool Hear() const {
    char byte;
    return read(from, &byte, 1) == 1;
  }
  // Ends the child at whatever it is doing; what it has reported can still be heard.
  void Kill() const {
    kill(pid, SIGKILL);
    int status = 0;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFSIGNALED(status));
  }
};

}  // namespace gabion::service
