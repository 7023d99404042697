/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a libFuzzer entry point over the files of corpus folders, for builds without a fuzzer. */
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

/* Counts the inputs in *n_files. */
static int replay_folder(const char *name, int *n_files)
{
    DIR *folder = opendir(name);
    if (folder == NULL) {
        perror(name);
        return 1;
    }
    int failed = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        char path[4096];
        snprintf(path, sizeof(path), "%s/%s", name, entry->d_name);
        failed |= replay_file(path);
        ++*n_files;
    }
    closedir(folder);
    return failed;
}

int main(int argc, char **argv)
{
    int failed = 0, n_files = 0;
    if (argc < 2) {
        fprintf(stderr, "usage: %s CORPUS_FOLDER...\n", argv[0]);
        return 2;
    }
    for (int i = 1; i < argc; i++)
        failed |= replay_folder(argv[i], &n_files);
    printf("replayed %d inputs\n", n_files);
    return failed || n_files == 0;
}
