"""What torch's operations do to channels, by their names in the dispatcher."""

from __future__ import annotations

SHAPE_OPS = frozenset(
    "view _unsafe_view reshape permute transpose t slice select expand unsqueeze squeeze split split_with_sizes chunk unbind "
    "alias detach clone contiguous _to_copy lift_fresh flip roll index_select index repeat pixel_shuffle pixel_unshuffle "
    "channel_shuffle native_channel_shuffle narrow unfold movedim stack cat tile swapaxes expand_copy view_copy slice_scatter "
    "select_scatter _reshape_alias unsafe_split unsafe_chunk to flatten".split()
)
UNCHANGED = frozenset("alias detach clone contiguous _to_copy lift_fresh".split())
VIEWS = frozenset("view _unsafe_view reshape _reshape_alias flatten".split())
REORDERINGS = frozenset(
    "flip roll index index_select repeat tile pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle".split()
)
INDEXING = frozenset("index index_select".split())
POOLS = frozenset(
    "max_pool2d_with_indices max_pool3d_with_indices max_pool1d_with_indices avg_pool1d avg_pool2d avg_pool3d "
    "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d "
    "adaptive_avg_pool1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d upsample_bicubic2d "
    "upsample_linear1d upsample_trilinear3d _upsample_bilinear2d_aa _upsample_nearest_exact2d reflection_pad1d "
    "reflection_pad2d replication_pad1d replication_pad2d".split()
)
REDUCTIONS = frozenset("mean sum amax amin max min var std var_mean linalg_vector_norm norm prod logsumexp any all".split())
SOFTMAX = frozenset("_softmax _log_softmax".split())
ALONG = SOFTMAX | frozenset("cumsum cumprod sort topk".split())
BATCH_NORMS = frozenset(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm miopen_batch_norm "
    "_batch_norm_with_update _batch_norm_no_update batch_norm_with_update".split()
)
WRITE_OPS = frozenset("copy_ fill_ zero_ normal_ uniform_ bernoulli_ random_".split())
FACTORIES = frozenset(
    "empty_like zeros_like ones_like full_like rand_like randn_like new_zeros new_empty new_ones new_full bernoulli".split()
)
ELEMENTWISE = frozenset(  # without torch's own tag for it
    "native_dropout dropout rrelu_with_noise _prelu_kernel prelu hardswish hardswish_ hardtanh_ mish_ "
    "log_sigmoid_forward".split()
)
PRODUCTS = frozenset("bmm baddbmm matmul mm addmm".split())
IN_PLACE_SHAPE = frozenset("transpose_ squeeze_ unsqueeze_ t_ swapaxes_".split())
ATTENTION_OPS = frozenset(
    "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention "
    "_scaled_dot_product_attention_math _native_multi_head_attention _scaled_dot_product_cudnn_attention "
    "_scaled_dot_product_fused_attention_overrideable _transformer_encoder_layer_fwd".split()
)
