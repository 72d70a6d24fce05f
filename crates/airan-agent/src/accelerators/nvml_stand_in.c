/* A stand-in for libnvidia-ml.so.1: not a driver, and no device behind it.
 *
 * It answers for a machine that is made up, so that the agent's reader can be shown against a library at all. Functions, structures,
 * numbers and units are written from the documentation of nvml.h, apart from the binding that the agent uses, so that a layout the
 * two do not agree on shows. What a real driver answers on a real device it cannot show.
 *
 *   device 0   answers everything; four NVLinks, three of them up; GPM
 *   device 1   cut by MIG into two slices, numbers 0 and 2
 *   device 2   a small one, of which most calls are "not supported"; one NVLink
 *
 * Compiled by nvml_tests.rs. WITHOUT_DRIVER, MISMATCH, LOSES_A_DEVICE, OLD and BARE make other libraries of it.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

typedef int Return;
enum {
    SUCCESS = 0,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    TIMEOUT = 10,
    GPU_IS_LOST = 15,
    LIB_RM_VERSION_MISMATCH = 18,
    ARGUMENT_VERSION_MISMATCH = 25
};

#define EXPORT __attribute__((visibility("default")))

typedef struct Device {
    int number; /* 0 to 2; a slice has its parent's */
    int slice;  /* -1: a whole device */
} Device;

EXPORT Return nvmlInit_v2(void)
{
#if defined(WITHOUT_DRIVER)
    return DRIVER_NOT_LOADED;
#elif defined(MISMATCH)
    return LIB_RM_VERSION_MISMATCH;
#else
    return SUCCESS;
#endif
}

EXPORT Return nvmlShutdown(void) { return SUCCESS; }

#ifndef BARE

static Device devices[3] = {{0, -1}, {1, -1}, {2, -1}};

static Return text(char *into, unsigned length, const char *from)
{
    if (strlen(from) + 1 > length)
        return INSUFFICIENT_SIZE;
    strcpy(into, from);
    return SUCCESS;
}

static int answers(const Device *device) { return device->number < 2 && device->slice < 0; }

EXPORT Return nvmlSystemGetDriverVersion(char *version, unsigned length)
{
#ifdef OLD
    return text(version, length, "418.226.00");
#else
    return text(version, length, "580.95.05");
#endif
}

EXPORT Return nvmlDeviceGetCount_v2(unsigned *count)
{
    *count = 3;
    return SUCCESS;
}

EXPORT Return nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device)
{
    if (index > 2)
        return INVALID_ARGUMENT;
    *device = &devices[index];
    return SUCCESS;
}

EXPORT Return nvmlDeviceGetUUID(const Device *device, char *uuid, unsigned length)
{
    static const char *const whole[] = {"GPU-stand-in-0", "GPU-stand-in-1", "GPU-stand-in-2"};
    char slice[32];
    if (device->slice < 0)
        return text(uuid, length, whole[device->number]);
    snprintf(slice, sizeof slice, "MIG-stand-in-%d", device->slice);
    return text(uuid, length, slice);
}

EXPORT Return nvmlDeviceGetName(const Device *device, char *name, unsigned length)
{
    return text(name, length, device->slice < 0 ? "Stand-in" : "Stand-in MIG 1g.10gb");
}

/* nvmlPciInfo_t */
typedef struct {
    char busIdLegacy[16];
    unsigned domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} Pci;

EXPORT Return nvmlDeviceGetPciInfo_v3(const Device *device, Pci *pci)
{
    memset(pci, 0, sizeof *pci);
    pci->bus = 0x1b + device->number;
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "0000:%02X:00.0", pci->bus);
    snprintf(pci->busId, sizeof pci->busId, "00000000:%02X:00.0", pci->bus);
    return SUCCESS;
}

EXPORT Return nvmlDeviceGetVbiosVersion(const Device *device, char *version, unsigned length)
{
    return answers(device) ? text(version, length, "96.00.A5.00.01") : NOT_SUPPORTED;
}

/* A value of device 0, and one of device 1; what the third is asked is not supported. */
#define VALUE(function, type, first, second)                                                                           \
    EXPORT Return function(const Device *device, type *value)                                                          \
    {                                                                                                                  \
        if (!answers(device))                                                                                          \
            return NOT_SUPPORTED;                                                                                      \
        *value = device->number ? (second) : (first);                                                                  \
        return SUCCESS;                                                                                                \
    }

VALUE(nvmlDeviceGetPowerUsage, unsigned, 67030, 250000)
VALUE(nvmlDeviceGetEnforcedPowerLimit, unsigned, 700000, 400000)
VALUE(nvmlDeviceGetPowerManagementLimit, unsigned, 650000, 400000)
VALUE(nvmlDeviceGetPowerManagementDefaultLimit, unsigned, 700000, 400000)
VALUE(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, 123456789012ull, 5000ull)
VALUE(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, 0x104ull, 0ull)
VALUE(nvmlDeviceGetPerformanceState, unsigned, 2, 0)
VALUE(nvmlDeviceGetPcieReplayCounter, unsigned, 3, 0)
VALUE(nvmlDeviceGetCurrPcieLinkGeneration, unsigned, 4, 5)
VALUE(nvmlDeviceGetMaxPcieLinkGeneration, unsigned, 5, 5)
VALUE(nvmlDeviceGetCurrPcieLinkWidth, unsigned, 8, 16)
VALUE(nvmlDeviceGetMaxPcieLinkWidth, unsigned, 16, 16)
VALUE(nvmlDeviceGetPersistenceMode, unsigned, 1, 0)
VALUE(nvmlDeviceGetComputeMode, unsigned, 3, 0)

EXPORT Return nvmlDeviceGetTemperature(const Device *device, unsigned sensor, unsigned *celsius)
{
    if (sensor)
        return INVALID_ARGUMENT;
    *celsius = 41 + device->number;
    return SUCCESS;
}

EXPORT Return nvmlDeviceGetFanSpeed_v2(const Device *device, unsigned fan, unsigned *percent)
{
    if (device->number != 2)
        return NOT_SUPPORTED;
    *percent = fan ? 99 : 30;
    return SUCCESS;
}

/* nvmlUtilization_t; not known of a device that is cut by MIG. */
typedef struct {
    unsigned gpu, memory;
} Utilization;

EXPORT Return nvmlDeviceGetUtilizationRates(const Device *device, Utilization *utilization)
{
    if (device->number)
        return NOT_SUPPORTED;
    utilization->gpu = 40;
    utilization->memory = 7;
    return SUCCESS;
}

EXPORT Return nvmlDeviceGetEncoderUtilization(const Device *device, unsigned *percent, unsigned *micros)
{
    if (device->number)
        return NOT_SUPPORTED;
    *percent = 11;
    *micros = 167000;
    return SUCCESS;
}

EXPORT Return nvmlDeviceGetDecoderUtilization(const Device *device, unsigned *percent, unsigned *micros)
{
    if (device->number)
        return NOT_SUPPORTED;
    *percent = 12;
    *micros = 167000;
    return SUCCESS;
}

EXPORT Return nvmlDeviceGetEncoderStats(const Device *device, unsigned *sessions, unsigned *fps, unsigned *micros)
{
    if (device->number)
        return NOT_SUPPORTED;
    *sessions = 1;
    *fps = 30;
    *micros = 2500;
    return SUCCESS;
}

EXPORT Return nvmlDeviceGetPowerManagementLimitConstraints(const Device *device, unsigned *least, unsigned *most)
{
    if (!answers(device))
        return NOT_SUPPORTED;
    *least = 200000;
    *most = 700000;
    return SUCCESS;
}

/* Graphics, SM, memory, video. */
EXPORT Return nvmlDeviceGetClockInfo(const Device *device, unsigned clock, unsigned *megahertz)
{
    static const unsigned now[] = {1980, 1975, 2619, 1545};
#ifdef LOSES_A_DEVICE
    if (device->number == 0)
        return GPU_IS_LOST;
#endif
    if (!answers(device))
        return NOT_SUPPORTED;
    *megahertz = now[clock];
    return SUCCESS;
}

EXPORT Return nvmlDeviceGetMaxClockInfo(const Device *device, unsigned clock, unsigned *megahertz)
{
    static const unsigned most[] = {2010, 2000, 2620, 1600};
    if (!answers(device))
        return NOT_SUPPORTED;
    *megahertz = most[clock];
    return SUCCESS;
}

/* Sent, received; KB/s over 20 ms. */
EXPORT Return nvmlDeviceGetPcieThroughput(const Device *device, unsigned way, unsigned *kilobytes)
{
    if (!answers(device))
        return NOT_SUPPORTED;
    *kilobytes = way ? 12 : 4000;
    return SUCCESS;
}

EXPORT Return nvmlDeviceGetNvLinkState(const Device *device, unsigned link, unsigned *up)
{
    static const unsigned links[] = {4, 0, 1};
    if (device->slice >= 0 || link >= links[device->number])
        return link ? INVALID_ARGUMENT : NOT_SUPPORTED;
    *up = link != 2;
    return SUCCESS;
}

/* Corrected, uncorrected; since the driver was loaded, in the device's life. */
EXPORT Return nvmlDeviceGetTotalEccErrors(const Device *device, unsigned kind, unsigned since, unsigned long long *errors)
{
    if (!answers(device))
        return NOT_SUPPORTED;
    *errors = 10 * since + kind + 1;
    return SUCCESS;
}

EXPORT Return nvmlDeviceGetEccMode(const Device *device, unsigned *current, unsigned *pending)
{
    if (!answers(device))
        return NOT_SUPPORTED;
    *current = 1;
    *pending = 0;
    return SUCCESS;
}

/* nvmlFieldValue_t */
typedef struct {
    unsigned fieldId, scopeId;
    long long timestamp, latencyUsec;
    unsigned valueType;
    Return nvmlReturn;
    union {
        double dVal;
        int siVal;
        unsigned uiVal;
        unsigned long ulVal;
        unsigned long long ullVal;
        long long sllVal;
    } value;
} Field;

enum { DOUBLE = 0, UNSIGNED_INT = 1, UNSIGNED_LONG = 2, UNSIGNED_LONG_LONG = 3, SIGNED_LONG_LONG = 4 };

static void field_of(const Device *device, Field *field)
{
    /* What stays: every field that this machine does not know. */
    field->nvmlReturn = NOT_SUPPORTED;
    field->value.ullVal = 7777;
    field->valueType = UNSIGNED_LONG_LONG;
    if (device->number == 2) {
        /* NVLINK_THROUGHPUT_DATA_TX, _RX: KiB, of the link in scopeId */
        if ((field->fieldId == 138 || field->fieldId == 139) && field->scopeId == 0) {
            field->value.ullVal = field->fieldId == 138 ? 1000 : 2000;
            field->nvmlReturn = SUCCESS;
        }
        return;
    }
    field->nvmlReturn = SUCCESS;
    switch (field->fieldId) {
    case 38: /* NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL */
        field->value.ullVal = 4;
        break;
    case 74: /* PERF_POLICY_POWER, nanoseconds */
        field->value.ullVal = 2500000000ull;
        break;
    case 82: /* MEMORY_TEMP */
        field->valueType = UNSIGNED_INT;
        field->value.ullVal = 0;
        field->value.uiVal = 48;
        break;
    case 138: /* link 0 of several: must not be taken for all of them */
    case 139:
        field->value.ullVal = 5;
        break;
    case 143: /* REMAPPED_UNC */
        field->valueType = UNSIGNED_LONG;
        field->value.ullVal = 0;
        field->value.ulVal = 1;
        break;
    case 186: /* POWER_INSTANT, milliwatts */
        field->valueType = UNSIGNED_INT;
        field->value.ullVal = 0;
        field->value.uiVal = 68000;
        break;
    case 230: /* GET_GPU_RECOVERY_ACTION */
        field->valueType = SIGNED_LONG_LONG;
        field->value.sllVal = 1;
        break;
#ifdef OLD
    case 252: /* CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN, nanoseconds: of drivers before 580.82 */
#else
    case 270: /* the same, and of later ones */
#endif
        field->value.ullVal = 3000000000ull;
        break;
    default:
        field->nvmlReturn = NOT_SUPPORTED;
    }
}

EXPORT Return nvmlDeviceGetFieldValues(const Device *device, int count, Field *fields)
{
    for (int at = 0; at < count; at++)
        field_of(device, &fields[at]);
    return SUCCESS;
}

EXPORT Return nvmlDeviceGetSupportedEventTypes(const Device *device, unsigned long long *types)
{
    *types = device->number < 2 ? 0x8 | 0x1 : 0;
    return SUCCESS;
}

EXPORT Return nvmlEventSetCreate(void **set)
{
    static int registered;
    registered = 0;
    *set = &registered;
    return SUCCESS;
}

EXPORT Return nvmlDeviceRegisterEvents(const Device *device, unsigned long long types, int *set)
{
    if (device->number > 1 || types != 0x8)
        return NOT_SUPPORTED;
    *set += 1;
    return SUCCESS;
}

EXPORT Return nvmlEventSetFree(int *set)
{
    *set = 0;
    return SUCCESS;
}

#ifndef OLD

/* nvmlMemory_v2_t: bytes */
typedef struct {
    unsigned version;
    unsigned long long total, reserved, free, used;
} Memory;

EXPORT Return nvmlDeviceGetMemoryInfo_v2(const Device *device, Memory *memory)
{
    if (memory->version != (sizeof *memory | 2u << 24))
        return ARGUMENT_VERSION_MISMATCH;
    if (device->number == 2)
        return NOT_SUPPORTED;
    memory->total = device->slice < 0 ? 80000000000ull : 10000000000ull;
    memory->reserved = 500000000ull;
    memory->used = device->slice < 0 ? 2000000000ull : 1000000000ull * (device->slice + 1);
    memory->free = memory->total - memory->reserved - memory->used;
    return SUCCESS;
}

/* nvmlProcessInfo_t of the _v2 and _v3 functions */
typedef struct {
    unsigned pid;
    unsigned long long usedGpuMemory;
    unsigned gpuInstanceId, computeInstanceId;
} Process;

static Return processes(const Process *known, unsigned there, unsigned *count, Process *into)
{
    unsigned room = *count;
    *count = there;
    if (there > room || (there && !into))
        return INSUFFICIENT_SIZE;
    memcpy(into, known, there * sizeof *known);
    return SUCCESS;
}

EXPORT Return nvmlDeviceGetComputeRunningProcesses_v3(const Device *device, unsigned *count, Process *into)
{
    static const Process of_0[] = {{4294967290u, 1500000000ull, ~0u, ~0u}, {4294967291u, ~0ull, ~0u, ~0u}};
    static const Process of_slice[] = {{4294967292u, 900000000ull, 7, 0}};
    if (device->number == 2)
        return NOT_SUPPORTED;
    if (device->number == 0)
        return processes(of_0, 2, count, into);
    return processes(of_slice, device->slice == 2, count, into);
}

EXPORT Return nvmlDeviceGetGraphicsRunningProcesses_v3(const Device *device, unsigned *count, Process *into)
{
    /* One that computes as well, and one that does not. */
    static const Process of_0[] = {{4294967291u, 1000ull, ~0u, ~0u}, {4294967293u, 2000ull, ~0u, ~0u}};
    return device->number ? NOT_SUPPORTED : processes(of_0, 2, count, into);
}

EXPORT Return nvmlDeviceGetMigMode(const Device *device, unsigned *current, unsigned *pending)
{
    if (!answers(device))
        return NOT_SUPPORTED;
    *current = device->number == 1;
    *pending = 0;
    return SUCCESS;
}

EXPORT Return nvmlDeviceGetMaxMigDeviceCount(const Device *device, unsigned *count)
{
    *count = device->number == 1 ? 7 : 0;
    return SUCCESS;
}

static Device slices[3] = {{1, 0}, {1, 1}, {1, 2}};

EXPORT Return nvmlDeviceGetMigDeviceHandleByIndex(const Device *device, unsigned index, Device **slice)
{
    if (device->number != 1 || index > 2 || index == 1)
        return NOT_FOUND;
    *slice = &slices[index];
    return SUCCESS;
}

/* nvmlDeviceAttributes_t */
typedef struct {
    unsigned multiprocessors, copy, decoder, encoder, jpeg, ofa, gpuInstanceSlices, computeInstanceSlices;
    unsigned long long memorySizeMB;
} Attributes;

EXPORT Return nvmlDeviceGetAttributes_v2(const Device *device, Attributes *attributes)
{
    if (device->slice < 0)
        return NOT_SUPPORTED;
    memset(attributes, 0, sizeof *attributes);
    attributes->multiprocessors = 14;
    attributes->gpuInstanceSlices = 1;
    attributes->computeInstanceSlices = 1;
    attributes->memorySizeMB = 9728;
    return SUCCESS;
}

/* nvmlEventData_t */
typedef struct {
    const Device *device;
    unsigned long long eventType, eventData;
    unsigned gpuInstanceId, computeInstanceId;
} Event;

/* Two XID errors of device 0, 79 and then one whose code the driver does not know (999); nothing after them. */
EXPORT Return nvmlEventSetWait_v2(int *set, Event *event, unsigned milliseconds)
{
    static int told;
    struct timespec wait = {milliseconds / 1000, milliseconds % 1000 * 1000000l};
    if (told == 2 || *set != 2) {
        nanosleep(&wait, NULL);
        return TIMEOUT;
    }
    event->device = &devices[0];
    event->eventType = 0x8;
    event->eventData = told++ ? 999 : 79;
    event->gpuInstanceId = event->computeInstanceId = ~0u;
    return SUCCESS;
}

/* nvmlGpmSupport_t */
typedef struct {
    unsigned version, isSupportedDevice;
} GpmSupport;

EXPORT Return nvmlGpmQueryDeviceSupport(const Device *device, GpmSupport *support)
{
    if (support->version != 1)
        return ARGUMENT_VERSION_MISMATCH;
    support->isSupportedDevice = device->number == 0;
    return SUCCESS;
}

/* Which of the samples that are there it is: at most two at once, or the agent keeps more than it says. */
static struct {
    int held, taken;
} samples[2];
static int taken;

EXPORT Return nvmlGpmSampleAlloc(void **sample)
{
    for (int at = 0; at < 2; at++) {
        if (!samples[at].held) {
            samples[at].held = 1;
            *sample = &samples[at];
            return SUCCESS;
        }
    }
    return INSUFFICIENT_SIZE;
}

EXPORT Return nvmlGpmSampleFree(int *sample)
{
    sample[0] = 0;
    return SUCCESS;
}

EXPORT Return nvmlGpmSampleGet(const Device *device, int *sample)
{
    if (device->number)
        return NOT_SUPPORTED;
    sample[1] = ++taken;
    return SUCCESS;
}

/* nvmlGpmMetric_t, nvmlGpmMetricsGet_t */
typedef struct {
    unsigned metricId;
    Return nvmlReturn;
    double value;
    const char *shortName, *longName, *unit;
} Metric;

typedef struct {
    unsigned version, numMetrics;
    const int *sample1, *sample2;
    Metric metrics[98];
} Metrics;

EXPORT Return nvmlGpmMetricsGet(Metrics *asked)
{
    /* The second sample must be the one after the first. */
    if (asked->version != 1 || asked->sample2[1] != asked->sample1[1] + 1)
        return INVALID_ARGUMENT;
    for (unsigned at = 0; at < asked->numMetrics; at++) {
        Metric *metric = &asked->metrics[at];
        metric->nvmlReturn = SUCCESS;
        switch (metric->metricId) {
        case 1: /* GRAPHICS_UTIL, percent */
            metric->value = 90.0;
            break;
        case 2: /* SM_UTIL */
            metric->value = 72.5;
            break;
        case 3: /* SM_OCCUPANCY */
            metric->value = 30.0;
            break;
        case 5: /* ANY_TENSOR_UTIL */
            metric->value = 55.0;
            break;
        case 10: /* DRAM_BW_UTIL */
            metric->value = 61.0;
            break;
        case 12: /* FP32_UTIL: a measure without a value */
            metric->value = 0.0 / 0.0;
            break;
        case 13: /* FP16_UTIL */
            metric->value = 0.0;
            break;
        case 60: /* NVLINK_TOTAL_RX_PER_SEC, MiB/s */
            metric->value = 200.0;
            break;
        case 61: /* NVLINK_TOTAL_TX_PER_SEC */
            metric->value = 100.5;
            break;
        default: /* FP64_UTIL among them */
            metric->nvmlReturn = NOT_SUPPORTED;
            metric->value = 8888.0;
        }
    }
    return SUCCESS;
}

#endif /* OLD */
#endif /* BARE */
