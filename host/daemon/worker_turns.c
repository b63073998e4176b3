/* The worker's two threads and whose turn it is at the daemon's socket (worker.h). */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "daemon/worker.h"

/* How long a job may run on the thread whose turn it is: a fraction of the 50 ms in which a cancel is to
 * be noticed, and much more than a change of threads takes. */
enum { HERE_NS = 2000000 };

static void set_timer(state *s, uint64_t ns) {
  struct itimerspec t = {.it_value.tv_nsec = (long)ns};
  s->timer_set = true;
  timerfd_settime(s->timer, 0, &t, NULL);
}

/* The timer is left to run when the job is done: one wake-up in 2 ms is less than two calls a job. */
void turn_leave(state *s) {
  s->here_ns = viv__now_ns();
  if (!s->timer_set) set_timer(s, HERE_NS);
  pthread_mutex_unlock(&s->lock);
}

bool turn_return(state *s, uint64_t turn) {
  pthread_mutex_lock(&s->lock);
  if (s->turn != turn) return false;
  s->here_ns = 0;
  return true;
}

static void take_frame(state *s, const viv__frame *f, int fd) {
  running *r;
  uint64_t n = 0;
  switch (f->type) {
  case VIV__WIRE_CALL:
    take_call(s, f, fd);
    break;
  case VIV__WIRE_SUBMIT:
    take_submit(s, f);
    break;
  case VIV__WIRE_CREDIT_MORE:
    if ((r = find_running(s, f->id)) && viv__wire_number_read(f, &n, NULL) >= 0)
      r->credit += (int64_t)n;
    break;
  case VIV__WIRE_CANCEL:
    if ((r = find_running(s, f->id))) {
      r->cancelled = true;
      viv_job_cancel(r->job);
    }
    break;
  case VIV__WIRE_POOL:
    map_pool(s, f, fd);
    fd = -1;
    break;
  case VIV__WIRE_FEED:
    take_feed(s, f);
    break;
  case VIV__WIRE_PROMPT:
    prompts_offer(s, fd);
    fd = -1;
    break;
  case VIV__WIRE_UNPOOL:
    unmap_pool(s, f->id);
    break;
  case VIV__WIRE_GOODBYE: /* of the connection of that number */
    results_forget(s->results, f->id);
    break;
  default:
    s->leaving = true;
  }
  if (fd >= 0) close(fd);
}

/* The frames that were read and not looked at yet. Ends early when the turn is lost: who has it then goes
 * on with them. */
static void take_frames(state *s) {
  viv__frame f;
  viv_error error = VIV_ERROR_INIT;
  int fd;
  int32_t status = VIV_WAIT;
  uint64_t turn = s->turn;
  while (!s->leaving && (status = viv__link_next(&s->link, &f, &fd, &error)) == VIV_OK) {
    take_frame(s, &f, fd);
    if (s->turn != turn) return;
  }
  if (status < 0) s->leaving = true;
}

static void read_frames(state *s) {
  int32_t status = viv__link_read(&s->link, NULL);
  if (status == VIV_DONE || status < 0)
    s->leaving = true;
  else
    take_frames(s);
}

/* Deadlines of jobs whose reader gives no credit are looked at now and then. */
enum { LOOK_MS = 100 };

/* Sends what there is, waits for more, reads it. */
static void attend(state *s) {
  static struct pollfd fds[MAX_JOBS + 2];
  for (size_t i = 0; i < s->n_jobs;)
    if (!pull_events(s, &s->jobs[i])) i++;
  give_room(s);
  prompts_send(s);
  int32_t flushed = viv__link_flush(&s->link);
  if (flushed < 0) {
    s->leaving = true;
    return;
  }
  nfds_t n = 2;
  bool waits = false;
  fds[0] = (struct pollfd){.fd = DAEMON_FD,
                           .events = (short)(POLLIN | (flushed == VIV_WAIT ? POLLOUT : 0))};
  fds[1] = (struct pollfd){.fd = s->taken, .events = POLLIN};
  for (size_t i = 0; i < s->n_jobs; i++) {
    running *r = &s->jobs[i];
    if (r->credit > 0 || r->cancelled) {
      int fd = viv_job_fd(r->job); /* below 0: none could be made, and its events are looked for */
      waits = waits || fd < 0;
      fds[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
    } else {
      waits = waits || r->deadline_ns;
    }
  }
  pthread_mutex_unlock(&s->lock);
  int ready = poll(fds, n, waits ? LOOK_MS : -1);
  int failed = errno;
  pthread_mutex_lock(&s->lock);
  uint64_t times;
  if (ready > 0 && fds[1].revents && read(s->taken, &times, sizeof times) < 0) errno = 0;
  if (ready < 0 && failed != EINTR)
    s->leaving = true;
  else if (ready > 0 && fds[0].revents & (POLLIN | POLLHUP | POLLERR))
    read_frames(s);
}

/* Waits until a job has been running for too long on the other thread; true: the turn is ours. */
static bool stand_by(state *s) {
  uint64_t times;
  pthread_mutex_unlock(&s->lock);
  ssize_t got = read(s->timer, &times, sizeof times);
  pthread_mutex_lock(&s->lock);
  if (got < 0 || s->leaving) return false;
  s->timer_set = false;
  uint64_t ran = s->here_ns ? viv__now_ns() - s->here_ns : 0;
  if (s->here_ns && ran < HERE_NS) set_timer(s, HERE_NS - ran);
  if (ran < HERE_NS) return false;
  s->here_ns = 0;
  s->turn++;
  return true;
}

static void take_turns(state *s, bool ours) {
  pthread_mutex_lock(&s->lock);
  while (!s->leaving) {
    uint64_t turn = s->turn;
    if (!ours) {
      if (!stand_by(s)) continue;
      turn = s->turn;
      take_frames(s); /* that came together with the job which runs too long */
    } else {
      attend(s);
    }
    ours = s->turn == turn;
  }
  /* A job that still runs on the other thread is of no more use, and who waits there is to see it. */
  for (size_t i = 0; i < s->n_jobs; i++) viv_job_cancel(s->jobs[i].job);
  set_timer(s, 1);
  pthread_mutex_unlock(&s->lock);
}

static void *second(void *context) {
  take_turns(context, false);
  return NULL;
}

void serve(state *s) {
  pthread_t other;
  pthread_mutex_init(&s->lock, NULL);
  s->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  s->taken = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (s->timer < 0 || s->taken < 0 || pthread_create(&other, NULL, second, s)) {
    fprintf(stderr, "the worker has no descriptor or thread for its second turn: %s\n",
            strerror(errno));
    return;
  }
  take_turns(s, true);
  pthread_join(other, NULL);
  close(s->timer);
  pthread_mutex_destroy(&s->lock);
}
