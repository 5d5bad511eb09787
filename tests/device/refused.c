/* Machines that cannot be used, each in a process of its own as devices are counted once: one line that names what is
 * missing and what helps. And memory that a kernel itself asks for: the line of tensors. */
#include "check.h"
#include "core/device.h"
#include "emu/installed.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TEXT = 512 };

/* What choosing the first GPU says on this machine; "" when it can be used. Valid until the next call. */
static const char *said_on(emu_machine machine) {
    static char *text;
    if (!text) text = mmap(NULL, TEXT, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(text, MAP_FAILED);
    snprintf(text, TEXT, "the process ended");
    pid_t child = fork();
    if (child == 0) {
        int device = 0;
        syz_cuda_report report;
        emu_installed = machine;
        bool usable = syz_device_parse(&device, "cuda") == SYZ_OK;
        syz_cuda_status(&report);
        snprintf(text, TEXT, "%s", usable ? "" : syz_error_message());
        _exit(usable == (device == 1 && report.devices > 0) ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    return text;
}

static emu_machine usable_machine(void) {
    return (emu_machine){.driver = 13000, .compute = 90, .cudnn = 91600, .memory = 1 << 20};
}

static void a_driver(void **state) {
    (void)state;
    emu_machine machine = usable_machine();
    machine.driver = 0;
    assert_string_equal(said_on(machine), "cuda:0: no NVIDIA driver is loaded: install one for CUDA 13.0 or newer, or "
                                          "choose the device cpu");
    machine.driver = 12080;
    assert_string_equal(said_on(machine), "cuda:0: the NVIDIA driver is for CUDA 12.8, and 13.0 is needed: install a "
                                          "newer driver, or build with an older CUDA toolkit");
    machine.driver = 13020;
    assert_string_equal(said_on(machine), "");
}

static void a_cudnn(void **state) {
    (void)state;
    emu_machine machine = usable_machine();
    machine.cudnn = 91599;
    assert_string_equal(said_on(machine), "cuda:0: cuDNN 9.15 is loaded, and attention needs 9.16 or newer: install "
                                          "it, or set LD_LIBRARY_PATH to the one that is installed");
    machine.cudnn = 91600;
    assert_string_equal(said_on(machine), "");
}

static void an_old_gpu(void **state) {
    (void)state;
    emu_machine machine = usable_machine();
    machine.compute = 75;
    assert_string_equal(said_on(machine), "cuda:0: cuda:0 has compute capability 7.5, and 8.0 (Ampere) is the least "
                                          "that is supported");
}

/* The emulated build has 80-real, 90a-real, 100-real and 100-virtual. */
static void an_architecture(void **state) {
    (void)state;
    static const int with_kernels[] = {80, 86, 89, 90, 100, 103, 120};
    emu_machine machine = usable_machine();
    for (size_t k = 0; k < sizeof with_kernels / sizeof *with_kernels; k++) {
        machine.compute = with_kernels[k];
        assert_string_equal(said_on(machine), "");
    }
    machine.compute = 95; /* 90a's code runs on 9.0 alone */
    const char *said = said_on(machine);
    assert_non_null(strstr(said, "compute capability 9.5, and this build has kernels for 80-real,90a-real,"));
    assert_non_null(strstr(said, "configure it with -DSYZ_CUDA_ARCHITECTURES=95"));
}

/* ---- memory that kernels ask for ---- */

static syz_tensor *attend(const syz_tensor *x) {
    return syz_attention((syz_tensor *)x, (syz_tensor *)x, (syz_tensor *)x, NULL, false, 0);
}

/* Scores in f32 need 16 MiB, which the GPU does not have; the tensors are small. */
static void scratch(void **state) {
    (void)state;
    emu_machine before = emu_installed;
    syz_device_use use;
    syz_tensor *x = check_randn(SYZ_SHAPE(1, 2048, 1, 2), 1);
    assert_int_equal(syz_device_memory(check_device(), &use), SYZ_OK);
    emu_installed.memory = (use.total - use.unused) + (1 << 20);
    assert_null(attend(x));
    assert_int_equal(syz_error_status(), SYZ_ENOMEM);
    const char *said = syz_error_message();
    if (!strstr(said, "out of memory on cuda:0: 16.00 MiB asked") ||
        !strstr(said, "what helps: memory = \"checkpoint\""))
        fail_msg("%s", said);
    syz_error_clear();
    emu_installed = before;
    check_ok(attend(x));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_driver), cmocka_unit_test(a_cudnn),
                                       cmocka_unit_test(an_old_gpu), cmocka_unit_test(an_architecture),
                                       CHECK_TEST(scratch)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
