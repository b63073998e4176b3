// oneDNN on the shapes of conv_shapes.h: in the layouts that it likes best, weights reordered before,
// the faster of its direct and its automatic choice. Prints "shape seconds", one a line. Built by
// bench_conv.sh; the number of threads is OMP_NUM_THREADS. "sgemm": operations per second of its product of
// 1024 x 1024 x 1024.
#include <cstdio>
#include <cstdlib>
#include <dnnl.hpp>
#include <ctime>
#include <vector>

#include "conv_shapes.h"

using namespace dnnl;
using dims = memory::dims;

static engine cpu(engine::kind::cpu, 0);

// As bench_conv: one thread is measured by its processor time.
static double now() {
  const char *threads = std::getenv("OMP_NUM_THREADS");
  timespec t;
  clock_gettime(threads && std::atoi(threads) == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC,
                &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

static double measure(const conv_shape &s, algorithm how) {
  dims x = {1, s.in}, y = {1, s.out}, w, stride, dilation, pad;
  int rows = s.transposed ? s.out : s.out, cols = s.in;
  if (s.groups > 1)
    w = {s.groups, rows / s.groups, cols / s.groups};
  else
    w = {rows, cols};
  for (int i = 0; i < s.dims; i++) {
    x.push_back(s.size[i]);
    y.push_back(conv_shape_out(&s, i));
    w.push_back(s.kernel);
    stride.push_back(s.stride);
    dilation.push_back(s.dilation - 1);
    pad.push_back(s.pad);
  }
  auto any = memory::format_tag::any;
  auto f32 = memory::data_type::f32;
  memory::desc xd(x, f32, any), wd(w, f32, any), yd(y, f32, any);
  memory::desc bd({s.out}, f32, memory::format_tag::a);
  primitive run;
  memory::desc xm, wm, ym;
  if (s.transposed) {
    deconvolution_forward::desc d(prop_kind::forward_inference, algorithm::deconvolution_direct, xd,
                                  wd, bd, yd, stride, dilation, pad, pad);
    deconvolution_forward::primitive_desc pd(d, cpu);
    xm = pd.src_desc(), wm = pd.weights_desc(), ym = pd.dst_desc();
    run = deconvolution_forward(pd);
  } else {
    convolution_forward::desc d(prop_kind::forward_inference, how, xd, wd, bd, yd, stride, dilation,
                                pad, pad);
    convolution_forward::primitive_desc pd(d, cpu);
    xm = pd.src_desc(), wm = pd.weights_desc(), ym = pd.dst_desc();
    run = convolution_forward(pd);
  }
  memory xs(xm, cpu), ws(wm, cpu), ys(ym, cpu), bs(bd, cpu);
  for (memory *m : {&xs, &ws, &ys, &bs}) {
    float *p = static_cast<float *>(m->get_data_handle());
    for (size_t i = 0; i < m->get_desc().get_size() / 4; i++)
      p[i] = 0.001f * float(i % 1000) - 0.5f;
  }
  stream st(cpu);
  double best = 1e9, total = 0;
  for (int i = 0; i < 4 || (total < 0.05 && i < 200); i++) {
    double start = now();
    run.execute(
        st, {{DNNL_ARG_SRC, xs}, {DNNL_ARG_WEIGHTS, ws}, {DNNL_ARG_BIAS, bs}, {DNNL_ARG_DST, ys}});
    st.wait();
    double t = now() - start;
    total += t;
    if (i && t < best) best = t;
  }
  return best;
}

static double sgemm() {
  const memory::dim side = 1024;
  std::vector<float> a(side * side, 0.5f), b(side * side, 0.25f), c(side * side);
  double best = 1e9;
  for (int i = 0; i < 16; i++) {
    double start = now();
    dnnl_sgemm('N', 'N', side, side, side, 1.0f, a.data(), side, b.data(), side, 0.0f, c.data(),
               side);
    double t = now() - start;
    if (i && t < best) best = t;
  }
  return 2.0 * side * side * side / best;
}

int main(int argc, char **argv) {
  if (argc > 1 && argv[1][0] == 's') {
    std::printf("%.4g\n", sgemm());
    return 0;
  }
  if (argc > 1) {
    std::printf("%d.%d.%d\n", version()->major, version()->minor, version()->patch);
    return 0;
  }
  for (int i = 0; i < CONV_SHAPES; i++) {
    double best = 1e9;
    for (algorithm how : {algorithm::convolution_direct, algorithm::convolution_auto}) try {
        double t = measure(conv_shapes[i], how);
        if (t < best) best = t;
      } catch (const error &) {
      }
    std::printf("%d %.9f\n", i, best);
    std::fflush(stdout);
  }
}
