// A Vulkan layer that lets Mesa's AMD driver compile pipelines on a machine without an AMD card.
//
// With RADV_FORCE_FAMILY the driver lists a device without hardware. Opening it fails as it is: the
// device has no memory types and no timeline semaphores, and its command functions do nothing
// useful. This layer adds memory types, hides timeline semaphores, and replaces every function that
// would reach the hardware by one that succeeds and does nothing. So a program runs to its end, its
// results are meaningless, and all of its pipelines are compiled by the real compiler.
//
// For each compute pipeline the layer writes to the folder CSAE_LAYER_OUT:
//   NNN.txt   the compiler's statistics, a line "name = value" each
//   NNN.asm   the assembly
// NNN counts the pipelines in the order of their compilation.
#define VK_NO_PROTOTYPES
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vulkan/vk_layer.h>
#include <vulkan/vulkan.h>

// Functions of the driver, found by name when the instance or the device is created.
static PFN_vkGetInstanceProcAddr next_instance;
static PFN_vkGetDeviceProcAddr next_device;
static PFN_vkGetPhysicalDeviceFeatures2 get_features;
static PFN_vkGetPhysicalDeviceMemoryProperties get_memory;
static PFN_vkGetPhysicalDeviceMemoryProperties2 get_memory2;
static PFN_vkCreateComputePipelines create_pipelines;
static PFN_vkGetPipelineExecutableStatisticsKHR get_statistics;
static PFN_vkGetPipelineExecutableInternalRepresentationsKHR get_texts;
static PFN_vkGetBufferMemoryRequirements get_requirements;
static PFN_vkGetBufferMemoryRequirements2 get_requirements2;
static PFN_vkAllocateMemory allocate;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int pipelines;

static const VkMemoryPropertyFlags VISIBLE =
    VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;

// --- what the device lacks -----------------------------------------------------------------------

static VKAPI_ATTR void VKAPI_CALL features(VkPhysicalDevice device, VkPhysicalDeviceFeatures2 *to) {
    get_features(device, to);
    for (VkBaseOutStructure *s = to->pNext; s; s = s->pNext) {
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES)
            ((VkPhysicalDeviceTimelineSemaphoreFeatures *)s)->timelineSemaphore = VK_FALSE;
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES)
            ((VkPhysicalDeviceVulkan12Features *)s)->timelineSemaphore = VK_FALSE;
    }
}

// Three memory types in two heaps of 16 GiB: of the device, of the host, and cached by the host.
static void add_memory(VkPhysicalDeviceMemoryProperties *to) {
    if (to->memoryTypeCount > 0) return;
    memset(to, 0, sizeof *to);
    to->memoryHeapCount = 2;
    to->memoryHeaps[0] = (VkMemoryHeap){16ull << 30, VK_MEMORY_HEAP_DEVICE_LOCAL_BIT};
    to->memoryHeaps[1] = (VkMemoryHeap){16ull << 30, 0};
    to->memoryTypeCount = 3;
    to->memoryTypes[0] = (VkMemoryType){VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, 0};
    to->memoryTypes[1] = (VkMemoryType){VISIBLE, 1};
    to->memoryTypes[2] = (VkMemoryType){VISIBLE | VK_MEMORY_PROPERTY_HOST_CACHED_BIT, 1};
}

static VKAPI_ATTR void VKAPI_CALL memory(VkPhysicalDevice device,
                                         VkPhysicalDeviceMemoryProperties *to) {
    get_memory(device, to);
    add_memory(to);
}

static VKAPI_ATTR void VKAPI_CALL memory2(VkPhysicalDevice device,
                                          VkPhysicalDeviceMemoryProperties2 *to) {
    get_memory2(device, to);
    add_memory(&to->memoryProperties);
    for (VkBaseOutStructure *s = to->pNext; s; s = s->pNext) {
        if (s->sType != VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT) continue;
        VkPhysicalDeviceMemoryBudgetPropertiesEXT *budget = (void *)s;
        budget->heapBudget[0] = budget->heapBudget[1] = 16ull << 30;
        budget->heapUsage[0] = budget->heapUsage[1] = 0;
    }
}

static VKAPI_ATTR void VKAPI_CALL requirements(VkDevice device, VkBuffer buffer,
                                               VkMemoryRequirements *to) {
    get_requirements(device, buffer, to);
    to->memoryTypeBits = 7;
}

static VKAPI_ATTR void VKAPI_CALL requirements2(VkDevice device,
                                                const VkBufferMemoryRequirementsInfo2 *info,
                                                VkMemoryRequirements2 *to) {
    get_requirements2(device, info, to);
    to->memoryRequirements.memoryTypeBits = 7;
}

// The driver itself knows only one kind of memory.
static VKAPI_ATTR VkResult VKAPI_CALL allocate_any(VkDevice device,
                                                   const VkMemoryAllocateInfo *info,
                                                   const VkAllocationCallbacks *callbacks,
                                                   VkDeviceMemory *to) {
    VkMemoryAllocateInfo first = *info;
    first.memoryTypeIndex = 0;
    return allocate(device, &first, callbacks, to);
}

static VKAPI_ATTR VkResult VKAPI_CALL succeed(void) { return VK_SUCCESS; }
static VKAPI_ATTR void VKAPI_CALL do_nothing(void) {}

// Fences and semaphores are numbers that nobody looks up.
static VKAPI_ATTR VkResult VKAPI_CALL create_handle(VkDevice device, const void *info,
                                                    const void *callbacks, uint64_t *to) {
    static uint64_t last = 4096;
    (void)device, (void)info, (void)callbacks;
    *to = last += 16;
    return VK_SUCCESS;
}

// --- what the compiler says ----------------------------------------------------------------------

static FILE *open_file(int number, const char *extension) {
    char path[1024];
    const char *folder = getenv("CSAE_LAYER_OUT");
    snprintf(path, sizeof path, "%s/%03d.%s", folder ? folder : ".", number, extension);
    FILE *file = fopen(path, "w");
    if (!file) {
        perror(path);
        exit(1);
    }
    return file;
}

static void write_statistics(VkDevice device, VkPipeline pipeline, int number) {
    VkPipelineExecutableInfoKHR info = {VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR, NULL,
                                        pipeline, 0};
    uint32_t count = 0;
    get_statistics(device, &info, &count, NULL);
    VkPipelineExecutableStatisticKHR *values = calloc(count, sizeof *values);
    for (uint32_t i = 0; i < count; i++)
        values[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR;
    get_statistics(device, &info, &count, values);
    FILE *file = open_file(number, "txt");
    for (uint32_t i = 0; i < count; i++)
        if (values[i].format == VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_UINT64_KHR)
            fprintf(file, "%s = %llu\n", values[i].name, (unsigned long long)values[i].value.u64);
    fclose(file);
    free(values);
}

static void write_assembly(VkDevice device, VkPipeline pipeline, int number) {
    VkPipelineExecutableInfoKHR info = {VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR, NULL,
                                        pipeline, 0};
    uint32_t count = 0;
    get_texts(device, &info, &count, NULL);
    VkPipelineExecutableInternalRepresentationKHR *texts = calloc(count, sizeof *texts);
    for (uint32_t i = 0; i < count; i++)
        texts[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INTERNAL_REPRESENTATION_KHR;
    // The first call tells the sizes, the second fills the texts in.
    get_texts(device, &info, &count, texts);
    for (uint32_t i = 0; i < count; i++) texts[i].pData = calloc(1, texts[i].dataSize + 1);
    get_texts(device, &info, &count, texts);
    for (uint32_t i = 0; i < count; i++) {
        if (texts[i].isText && strcmp(texts[i].name, "Assembly") == 0) {
            FILE *file = open_file(number, "asm");
            fputs(texts[i].pData, file);
            fclose(file);
        }
        free(texts[i].pData);
    }
    free(texts);
}

static VKAPI_ATTR VkResult VKAPI_CALL compile(VkDevice device, VkPipelineCache cache,
                                              uint32_t count,
                                              const VkComputePipelineCreateInfo *infos,
                                              const VkAllocationCallbacks *callbacks,
                                              VkPipeline *to) {
    VkComputePipelineCreateInfo *capturing = malloc(count * sizeof *capturing);
    memcpy(capturing, infos, count * sizeof *capturing);
    for (uint32_t i = 0; i < count; i++)
        capturing[i].flags |= VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR |
                              VK_PIPELINE_CREATE_CAPTURE_INTERNAL_REPRESENTATIONS_BIT_KHR;
    VkResult result = create_pipelines(device, cache, count, capturing, callbacks, to);
    free(capturing);
    if (result != VK_SUCCESS) return result;
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < count; i++) {
        write_statistics(device, to[i], pipelines);
        write_assembly(device, to[i], pipelines);
        pipelines++;
    }
    pthread_mutex_unlock(&lock);
    return VK_SUCCESS;
}

// --- the layer -----------------------------------------------------------------------------------

#define REPLACE(wanted, function) \
    if (strcmp(name, wanted) == 0) return (PFN_vkVoidFunction)(function)

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL of_device(VkDevice device, const char *name) {
    if (strncmp(name, "vkCmd", 5) == 0) return (PFN_vkVoidFunction)do_nothing;
    REPLACE("vkGetDeviceProcAddr", of_device);
    REPLACE("vkCreateComputePipelines", compile);
    REPLACE("vkGetBufferMemoryRequirements", requirements);
    REPLACE("vkGetBufferMemoryRequirements2", requirements2);
    REPLACE("vkGetBufferMemoryRequirements2KHR", requirements2);
    REPLACE("vkAllocateMemory", allocate_any);
    REPLACE("vkCreateFence", create_handle);
    REPLACE("vkCreateSemaphore", create_handle);
    REPLACE("vkDestroyFence", do_nothing);
    REPLACE("vkDestroySemaphore", do_nothing);
    static const char *succeeding[] = {
        "vkQueueSubmit",      "vkQueueWaitIdle",    "vkDeviceWaitIdle",     "vkWaitForFences",
        "vkResetFences",      "vkGetFenceStatus",   "vkBeginCommandBuffer", "vkEndCommandBuffer",
        "vkResetCommandPool", "vkResetCommandBuffer", "vkGetQueryPoolResults"};
    for (size_t i = 0; i < sizeof succeeding / sizeof *succeeding; i++)
        REPLACE(succeeding[i], succeed);
    return next_device(device, name);
}

static VKAPI_ATTR VkResult VKAPI_CALL create_device(VkPhysicalDevice physical,
                                                    const VkDeviceCreateInfo *info,
                                                    const VkAllocationCallbacks *callbacks,
                                                    VkDevice *to) {
    VkLayerDeviceCreateInfo *link = (void *)info->pNext;
    while (link->sType != VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO ||
           link->function != VK_LAYER_LINK_INFO)
        link = (void *)link->pNext;
    PFN_vkGetInstanceProcAddr instance = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
    next_device = link->u.pLayerInfo->pfnNextGetDeviceProcAddr;
    link->u.pLayerInfo = link->u.pLayerInfo->pNext;
    PFN_vkCreateDevice create = (void *)instance(NULL, "vkCreateDevice");

    // The program's extensions, and the one that reports statistics.
    uint32_t count = info->enabledExtensionCount;
    const char **extensions = malloc((count + 1) * sizeof *extensions);
    memcpy(extensions, info->ppEnabledExtensionNames, count * sizeof *extensions);
    extensions[count] = VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME;
    VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR feature = {
        VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR,
        (void *)info->pNext, VK_TRUE};
    VkDeviceCreateInfo more = *info;
    more.pNext = &feature;
    more.enabledExtensionCount = count + 1;
    more.ppEnabledExtensionNames = extensions;
    VkResult result = create(physical, &more, callbacks, to);
    free(extensions);
    if (result != VK_SUCCESS) return result;

    create_pipelines = (void *)next_device(*to, "vkCreateComputePipelines");
    get_statistics = (void *)next_device(*to, "vkGetPipelineExecutableStatisticsKHR");
    get_texts = (void *)next_device(*to, "vkGetPipelineExecutableInternalRepresentationsKHR");
    get_requirements = (void *)next_device(*to, "vkGetBufferMemoryRequirements");
    get_requirements2 = (void *)next_device(*to, "vkGetBufferMemoryRequirements2");
    allocate = (void *)next_device(*to, "vkAllocateMemory");
    return VK_SUCCESS;
}

static VKAPI_ATTR VkResult VKAPI_CALL create_instance(const VkInstanceCreateInfo *info,
                                                      const VkAllocationCallbacks *callbacks,
                                                      VkInstance *to) {
    VkLayerInstanceCreateInfo *link = (void *)info->pNext;
    while (link->sType != VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO ||
           link->function != VK_LAYER_LINK_INFO)
        link = (void *)link->pNext;
    next_instance = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
    link->u.pLayerInfo = link->u.pLayerInfo->pNext;
    PFN_vkCreateInstance create = (void *)next_instance(NULL, "vkCreateInstance");
    VkResult result = create(info, callbacks, to);
    if (result != VK_SUCCESS) return result;
    get_features = (void *)next_instance(*to, "vkGetPhysicalDeviceFeatures2");
    get_memory = (void *)next_instance(*to, "vkGetPhysicalDeviceMemoryProperties");
    get_memory2 = (void *)next_instance(*to, "vkGetPhysicalDeviceMemoryProperties2");
    return VK_SUCCESS;
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL of_instance(VkInstance instance, const char *name) {
    REPLACE("vkGetInstanceProcAddr", of_instance);
    REPLACE("vkGetDeviceProcAddr", of_device);
    REPLACE("vkCreateInstance", create_instance);
    REPLACE("vkCreateDevice", create_device);
    REPLACE("vkGetPhysicalDeviceFeatures2", features);
    REPLACE("vkGetPhysicalDeviceFeatures2KHR", features);
    REPLACE("vkGetPhysicalDeviceMemoryProperties", memory);
    REPLACE("vkGetPhysicalDeviceMemoryProperties2", memory2);
    REPLACE("vkGetPhysicalDeviceMemoryProperties2KHR", memory2);
    return next_instance ? next_instance(instance, name) : NULL;
}

__attribute__((visibility("default"))) VKAPI_ATTR VkResult VKAPI_CALL
vkNegotiateLoaderLayerInterfaceVersion(VkNegotiateLayerInterface *interface) {
    interface->loaderLayerInterfaceVersion = 2;
    interface->pfnGetInstanceProcAddr = of_instance;
    interface->pfnGetDeviceProcAddr = of_device;
    interface->pfnGetPhysicalDeviceProcAddr = NULL;
    return VK_SUCCESS;
}
