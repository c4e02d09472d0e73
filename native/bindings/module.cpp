#include "bindings/bindings.hpp"
#include "kernels/cpu.hpp"

NB_MODULE(_native, m) {
    m.doc() = "Kernels of the data plane; documented in _native.pyi.";
    cube::cpu_level();  // a wrong CUBE_CPU is told at once
    bind_errors();
    bind_cpu(m);
    bind_files(m);
    bind_snappy(m);
    bind_table(m);
    bind_byte_values(m);
    bind_frame(m);
    bind_seeker(m);
    bind_seek_plan(m);
    bind_ctr_codec(m);
    bind_ctr_frames(m);
    bind_row_cache(m);
    bind_sequence_file(m);
    bind_shard_pairs(m);
}
