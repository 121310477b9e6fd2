"""Which operators a program may call: the ones that only compute, by name.

Everything else is refused: PyTorch resolves a target by walking attributes from `torch`, so that
`torch.os.system` would be one. Even among its own operators some read and write files (`aten.from_file`),
print, load libraries, set up tensors over memory that is not theirs (`aten.set_`, `aten._reshape_alias`),
or believe what they are told about lengths (those of packed sequences, CTC, fractional pooling). Of each
name any overload may be used, and its in-place form (`relu_`): those change tensors of the program, as
training does.
"""

from __future__ import annotations

import re

_ARITHMETIC = """
abs absolute add addcdiv addcmul angle bitwise_and bitwise_left_shift bitwise_not bitwise_or
bitwise_right_shift bitwise_xor ceil clamp clamp_max clamp_min clip complex conj conj_physical copysign
deg2rad div divide exp exp2 expm1 fix float_power floor floor_divide fmax fmin fmod frac frexp gcd hypot
imag lcm ldexp lerp log log10 log1p log2 logaddexp logaddexp2 logit maximum minimum mul multiply nan_to_num
neg negative nextafter polar positive pow rad2deg real reciprocal remainder round rsqrt rsub sgn sign
signbit sqrt square sub subtract true_divide trunc xlogy __and__ __or__ __xor__ __lshift__ __rshift__
__iand__ __ior__ __ixor__ __ilshift__ __irshift__ _conj _neg_view _conj_physical resolve_conj resolve_neg
"""
_TRIGONOMETRY = """
acos acosh arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh atan atan2 atanh cos cosh sin
sinc sinh tan tanh
"""
_SPECIAL = """
digamma erf erfc erfinv i0 igamma igammac lgamma mvlgamma polygamma special_digamma special_entr special_erf
special_erfc special_erfcx special_erfinv special_exp2 special_expit special_expm1 special_gammainc
special_gammaincc special_gammaln special_i0 special_i0e special_i1 special_i1e special_log1p
special_log_ndtr special_log_softmax special_logit special_logsumexp special_multigammaln special_ndtr
special_ndtri special_polygamma special_psi special_round special_sinc special_softmax special_xlog1py
special_xlogy special_zeta special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1
"""
_COMPARISON = """
allclose all any eq equal ge greater greater_equal gt heaviside isclose isfinite isin isinf isnan isneginf
isposinf isreal le less less_equal logical_and logical_not logical_or logical_xor lt ne not_equal where
is_same_size is_nonzero _is_all_true _is_any_true is_floating_point is_complex is_signed
"""
_ACTIVATION = """
alpha_dropout celu dropout elu feature_alpha_dropout feature_dropout gelu glu hardshrink hardsigmoid
hardswish hardtanh leaky_relu log_sigmoid log_sigmoid_forward log_softmax mish native_dropout prelu
_prelu_kernel relu relu6 rrelu rrelu_with_noise selu sigmoid silu softmax softplus softshrink threshold
_softmax _log_softmax _safe_softmax
"""
_REDUCTION = """
amax amin aminmax argmax argmin count_nonzero cummax cummin cumprod cumsum cumulative_trapezoid dist
frobenius_norm kthvalue logcumsumexp logsumexp max mean median min mode nanmean nanmedian nanquantile nansum
norm nuclear_norm prod quantile std std_mean sum trapezoid trapz var var_mean renorm sum_to_size
norm_except_dim _aminmax
"""
_LINEAR_ALGEBRA = """
addbmm addmm addmv addr baddbmm bilinear bmm cdist chain_matmul cholesky cholesky_inverse cholesky_solve
corrcoef cov cross det diag diag_embed diagflat diagonal dot einsum geqrf ger inner inverse kron
linalg_cholesky linalg_cholesky_ex linalg_cond linalg_cross linalg_det linalg_diagonal linalg_eig
linalg_eigh linalg_eigvals linalg_eigvalsh linalg_householder_product linalg_inv linalg_inv_ex
linalg_ldl_factor linalg_ldl_solve linalg_lstsq linalg_lu linalg_lu_factor linalg_lu_factor_ex
linalg_lu_solve linalg_matmul linalg_matrix_exp linalg_matrix_norm linalg_matrix_power linalg_matrix_rank
linalg_multi_dot linalg_norm linalg_pinv linalg_qr linalg_slogdet linalg_solve linalg_solve_ex
linalg_solve_triangular linalg_svd linalg_svdvals linalg_tensorinv linalg_tensorsolve linalg_vander
linalg_vecdot linalg_vector_norm linear logdet lu_solve lu_unpack matmul matrix_exp matrix_power mm mv orgqr
ormqr outer pdist pinverse qr slogdet svd tensordot trace triangular_solve tril triu vander vdot _trilinear
_int_mm _grouped_mm _linalg_det _linalg_eigh _linalg_slogdet _linalg_solve_ex _linalg_svd _cdist_forward
_pdist_forward _euclidean_dist _addmm_activation
"""
_CONVOLUTION = """
conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d convolution _convolution
col2im im2col affine_grid_generator grid_sampler grid_sampler_2d grid_sampler_3d channel_shuffle
native_channel_shuffle pixel_shuffle pixel_unshuffle
"""
_POOLING = """
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool1d_with_indices max_pool2d
max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool2d max_unpool3d _adaptive_avg_pool2d
_adaptive_avg_pool3d
"""
_RESAMPLING = """
upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d
upsample_nearest3d upsample_trilinear3d _upsample_bicubic2d_aa _upsample_bilinear2d_aa
_upsample_lanczos2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
constant_pad_nd pad reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
replication_pad3d _pad_circular _pad_enum
"""
_NORMALISATION = """
batch_norm cosine_similarity group_norm instance_norm layer_norm native_group_norm native_layer_norm
pairwise_distance rms_norm _fused_rms_norm _native_batch_norm_legit _native_batch_norm_legit_functional
_native_batch_norm_legit_no_training _weight_norm _weight_norm_interface
"""
_SEQUENCE = """
embedding embedding_bag embedding_renorm _embedding_bag _embedding_bag_forward_only gru gru_cell lstm
lstm_cell rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell pad_sequence scaled_dot_product_attention
_scaled_dot_product_attention_math _scaled_dot_product_efficient_attention
_scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu _native_multi_head_attention
_transformer_encoder_layer_fwd
"""
_LOSS = """
binary_cross_entropy binary_cross_entropy_with_logits cosine_embedding_loss cross_entropy_loss
hinge_embedding_loss huber_loss kl_div l1_loss margin_ranking_loss mse_loss multi_margin_loss
multilabel_margin_loss multilabel_margin_loss_forward nll_loss nll_loss2d nll_loss2d_forward
nll_loss_forward nll_loss_nd poisson_nll_loss smooth_l1_loss soft_margin_loss triplet_margin_loss
"""
_SHAPE = """
adjoint alias alias_copy as_strided as_strided_copy as_strided_scatter atleast_1d atleast_2d atleast_3d
block_diag broadcast_tensors broadcast_to cartesian_prod cat chunk clone column_stack combinations concat
concatenate contiguous copy detach detach_copy diagonal_copy diagonal_scatter dsplit dstack expand expand_as
expand_copy flatten flip fliplr flipud hsplit hstack mH mT matrix_H meshgrid moveaxis movedim narrow
narrow_copy numpy_T permute permute_copy ravel repeat repeat_interleave reshape reshape_as roll rot90
row_stack select select_copy select_scatter slice slice_copy slice_scatter split split_copy split_with_sizes
split_with_sizes_copy squeeze squeeze_copy stack swapaxes swapdims t t_copy tensor_split tile transpose
transpose_copy unbind unbind_copy unflatten unfold unfold_copy unsafe_chunk unsafe_split
unsafe_split_with_sizes unsqueeze unsqueeze_copy view view_as view_as_complex view_as_complex_copy
view_as_real view_as_real_copy view_copy vsplit vstack _unsafe_view _reshape_copy
"""
_INDEXING = """
argsort argwhere bincount bucketize diff gather gradient histc index index_add index_copy index_fill
index_put index_reduce index_select masked_fill masked_scatter masked_select msort nonzero nonzero_numpy
nonzero_static one_hot put scatter scatter_add scatter_reduce searchsorted sort take take_along_dim topk
unique_consecutive unique_dim unique_dim_consecutive _unique _unique2 _unsafe_index _unsafe_index_put
"""
_CREATION = """
arange bartlett_window bernoulli binomial blackman_window cauchy empty empty_like empty_permuted
empty_strided exponential eye fill full full_like geometric hamming_window hann_window kaiser_window
linspace log_normal logspace multinomial new_empty new_empty_strided new_full new_ones new_zeros normal
normal_functional ones ones_like poisson rand rand_like randint randint_like randn randn_like random
randperm range scalar_tensor tril_indices triu_indices uniform zero zeros zeros_like
"""
_FOURIER = """
fft_fft fft_fft2 fft_fftfreq fft_fftn fft_fftshift fft_hfft fft_hfft2 fft_hfftn fft_ifft fft_ifft2 fft_ifftn
fft_ifftshift fft_ihfft fft_ihfft2 fft_ihfftn fft_irfft fft_irfft2 fft_irfftn fft_rfft fft_rfft2
fft_rfftfreq fft_rfftn _fft_c2c _fft_c2r _fft_r2c istft stft
"""
_TYPE = """
_to_copy chalf lift lift_fresh lift_fresh_copy result_type to type_as fake_quantize_per_channel_affine
fake_quantize_per_channel_affine_cachemask fake_quantize_per_tensor_affine
fake_quantize_per_tensor_affine_cachemask _cast_Byte _cast_Char _cast_Double _cast_Float _cast_Half
_cast_Int _cast_Long _cast_Short
"""
_FACT = """
_assert_async _assert_scalar _assert_tensor_metadata _functional_assert_async _functional_assert_scalar
_functional_sym_constrain_range _functional_sym_constrain_range_for_size _local_scalar_dense
_shape_as_tensor dim item numel size storage_offset stride sym_constrain_range sym_constrain_range_for_size
sym_is_contiguous sym_numel sym_size sym_storage_offset sym_stride is_contiguous
"""
_ATEN = frozenset(
    " ".join(
        (
            *(_ARITHMETIC, _TRIGONOMETRY, _SPECIAL, _COMPARISON, _ACTIVATION, _REDUCTION, _LINEAR_ALGEBRA),
            *(_CONVOLUTION, _POOLING, _RESAMPLING, _NORMALISATION, _SEQUENCE, _LOSS, _SHAPE, _INDEXING),
            *(_CREATION, _FOURIER, _TYPE, _FACT),
        )
    ).split()
)
_PRIMS = frozenset({"convert_element_type", "iota", "broadcast_in_dim", "rev", "view_of"})
_HIGHER_ORDER = frozenset(
    {"associative_scan", "cond", "map_impl", "scan", "tag_activation_checkpoint", "while_loop"}
    | {"wrap_with_autocast", "wrap_with_set_grad_enabled"}
)
_FUNCTIONS = frozenset(
    [
        "_operator.eq",
        "_operator.ne",
        "_operator.le",
        "_operator.ge",
        "_operator.lt",
        "_operator.gt",
        "_operator.neg",
        "_operator.pos",
        "_operator.mul",
        "_operator.add",
        "_operator.sub",
        "_operator.floordiv",
        "_operator.mod",
        "_operator.pow",
        "_operator.truediv",
        "_operator.and_",
        "_operator.or_",
        "_operator.lshift",
        "_operator.rshift",
        "math.trunc",
        "torch.sym_not",
        "torch.sym_int",
        "torch.sym_float",
        "torch.sym_ite",
        "torch.sym_max",
        "torch.sym_min",
        "torch.sym_sqrt",
        "torch._functorch.predispatch._add_batch_dim",
        "torch._functorch.predispatch._remove_batch_dim",
        "torch._functorch.predispatch._vmap_increment_nesting",
        "torch._functorch.predispatch._vmap_decrement_nesting",
        "torch._functorch.predispatch.lazy_load_decompositions",
    ]
)  # on sizes; and the marks that torch.vmap leaves
VMAP = "torch._functorch.predispatch._vmap_"
_OPERATOR = re.compile(r"torch\.ops\.(\w+)\.(\w+)(?:\.(\w+))?", re.ASCII)
_TORCHS_OWN = {
    "aten",
    "prims",
    "prim",
    "higher_order",
    "profiler",
    "inductor",
    "quantized",
    "mkldnn",
    "onednn",
}
_TORCHS_OWN |= {
    "_test",
    "_quantized",
    "sparse",
    "rngprims",
    "debugprims",
    "streams",
    "c10d",
    "_c10d_functional",
}


def is_higher_order(target: str) -> bool:
    """Whether an operator takes graphs."""
    return target.startswith("torch.ops.higher_order.")


def base_name(target: str) -> str:
    """`zeros` for `torch.ops.aten.zeros.default`; empty for what is not an ATen operator."""
    match = _OPERATOR.fullmatch(target)
    return match[2] if match and match[1] == "aten" else ""


def custom_namespace(target: str) -> str:
    """`torchvision` for `torch.ops.torchvision.nms.default`; empty for PyTorch's own, or no operator."""
    match = _OPERATOR.fullmatch(target)
    return match[1] if match and match[3] and match[1] not in _TORCHS_OWN else ""


def is_allowed(target: str) -> bool:
    """Whether a program may call `target`, one of PyTorch's own."""
    if target in _FUNCTIONS:
        return True
    match = _OPERATOR.fullmatch(target)
    if not match:
        return False
    namespace, word, overload = match.groups()
    if namespace == "higher_order":
        return word in _HIGHER_ORDER and overload is None
    if overload is None or overload.startswith("__"):
        return False
    if namespace == "aten":
        return word in _ATEN or (word.endswith("_") and word[:-1] in _ATEN)
    return namespace == "prims" and word in _PRIMS
