/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a libFuzzer entry point over the files of a corpus folder, for builds without a fuzzer. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        return 1;
    }
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    /* Exactly as large as the input, so that a sanitizer sees one byte too far. */
    uint8_t *data = malloc(size != 0 ? size : 1);
    size_t n = data != NULL ? fread(data, 1, size, file) : 0;
    fclose(file);
    if (n == size)
        LLVMFuzzerTestOneInput(data, size);
    free(data);
    return n == size ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s CORPUS_FOLDER\n", argv[0]);
        return 2;
    }
    DIR *folder = opendir(argv[1]);
    if (folder == NULL) {
        perror(argv[1]);
        return 1;
    }
    int failed = 0, n_files = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        char path[4096];
        snprintf(path, sizeof(path), "%s/%s", argv[1], entry->d_name);
        failed |= replay_file(path);
        n_files++;
    }
    closedir(folder);
    printf("replayed %d inputs\n", n_files);
    return failed || n_files == 0;
}
