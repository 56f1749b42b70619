"""Caffe's messages as a table: field numbers, names, kinds, defaults, enums, and how the dialects differ.

Notation of a field: `NUMBER name KIND[*|+] [DEFAULT]`, fields separated by commas. `*` is repeated, `+` repeated and
packed on the wire. A KIND is a scalar of protobuf, the name of an enum of `ENUMS`, or the name of a message. Without a
default the field starts as 0, false, "" or the enum's first value.

A message of `DIALECT_MESSAGES` replaces the common one of that name; `DIALECT_FIELDS` adds fields to it. Numbers that
mean different things (147, 148 of LayerParameter, nearly all of PoolingParameter) exist in the dialects' tables only.
No message contains itself, not even by way of others: nothing that is read by this table can nest without end.
"""

_ENGINE = "DEFAULT 0, CAFFE 1, CUDNN 2"
_V1_TYPES = (
    "NONE 0, ABSVAL 35, ACCURACY 1, ARGMAX 30, BNLL 2, CONCAT 3, CONTRASTIVE_LOSS 37, CONVOLUTION 4, DATA 5, "
    "DECONVOLUTION 39, DROPOUT 6, DUMMY_DATA 32, EUCLIDEAN_LOSS 7, ELTWISE 25, EXP 38, FLATTEN 8, HDF5_DATA 9, "
    "HDF5_OUTPUT 10, HINGE_LOSS 28, IM2COL 11, IMAGE_DATA 12, INFOGAIN_LOSS 13, INNER_PRODUCT 14, LRN 15, "
    "MEMORY_DATA 29, MULTINOMIAL_LOGISTIC_LOSS 16, MVN 34, POOLING 17, POWER 26, RELU 18, SIGMOID 19, "
    "SIGMOID_CROSS_ENTROPY_LOSS 27, SILENCE 36, SOFTMAX 20, SOFTMAX_LOSS 21, SPLIT 22, SLICE 33, TANH 23, "
    "WINDOW_DATA 24, THRESHOLD 31"
)

ENUMS: dict[str, str] = {
    "Phase": "TRAIN 0, TEST 1",
    "DimCheckMode": "STRICT 0, PERMISSIVE 1",
    "VarianceNorm": "FAN_IN 0, FAN_OUT 1, AVERAGE 2",
    "Engine": _ENGINE,
    "Normalization": "FULL 0, VALID 1, BATCH_SIZE 2, NONE 3",
    "EltwiseOp": "PROD 0, SUM 1, MAX 2",
    "HingeNorm": "L1 1, L2 2",
    "NormRegion": "ACROSS_CHANNELS 0, WITHIN_CHANNEL 1",
    "PoolMethod": "MAX 0, AVE 1, STOCHASTIC 2",
    "RoundMode": "CEIL 0, FLOOR 1",
    "ReductionOp": "SUM 1, ASUM 2, SUMSQ 3, MEAN 4",
    "DataBase": "LEVELDB 0, LMDB 1",
    "SolverMode": "CPU 0, GPU 1",
    "SolverType": "SGD 0, NESTEROV 1, ADAGRAD 2, RMSPROP 3, ADADELTA 4, ADAM 5",
    "SnapshotFormat": "HDF5 0, BINARYPROTO 1",
    "V1LayerType": _V1_TYPES,
}

_INTEL_ENUMS = {
    "Engine": _ENGINE + ", MKL2017 3, MKLDNN 4",
    "Normalization": "FULL 0, VALID 1, BATCH_SIZE 2, PRE_FIXED 3, NONE 4",
}
DIALECT_ENUMS: dict[str, dict[str, str]] = {"bvlc": {}, "intel": _INTEL_ENUMS, "extended": _INTEL_ENUMS}

_EXPONENT = "1 base float -1, 2 scale float 1, 3 shift float"

MESSAGES: dict[str, str] = {
    "BlobShape": "1 dim int64+",
    "BlobProto": (
        "1 num int32, 2 channels int32, 3 height int32, 4 width int32, 5 data float+, 6 diff float+, "
        "7 shape BlobShape, 8 double_data double+, 9 double_diff double+"
    ),
    "NetState": "1 phase Phase TEST, 2 level int32, 3 stage string*",
    "NetStateRule": "1 phase Phase, 2 min_level int32, 3 max_level int32, 4 stage string*, 5 not_stage string*",
    "NetParameter": (
        "1 name string, 2 layers V1LayerParameter*, 3 input string*, 4 input_dim int32*, 5 force_backward bool, "
        "6 state NetState, 7 debug_info bool, 8 input_shape BlobShape*, 100 layer LayerParameter*"
    ),
    "ParamSpec": "1 name string, 2 share_mode DimCheckMode, 3 lr_mult float 1, 4 decay_mult float 1",
    "FillerParameter": (
        "1 type string constant, 2 value float, 3 min float, 4 max float 1, 5 mean float, 6 std float 1, "
        "7 sparse int32 -1, 8 variance_norm VarianceNorm"
    ),
    "LayerParameter": (
        "1 name string, 2 type string, 3 bottom string*, 4 top string*, 5 loss_weight float*, 6 param ParamSpec*, "
        "7 blobs BlobProto*, 8 include NetStateRule*, 9 exclude NetStateRule*, 10 phase Phase, "
        "11 propagate_down bool*, 100 transform_param TransformationParameter, 101 loss_param LossParameter, "
        "102 accuracy_param AccuracyParameter, 103 argmax_param ArgMaxParameter, 104 concat_param ConcatParameter, "
        "105 contrastive_loss_param ContrastiveLossParameter, 106 convolution_param ConvolutionParameter, "
        "107 data_param DataParameter, 108 dropout_param DropoutParameter, 109 dummy_data_param DummyDataParameter, "
        "110 eltwise_param EltwiseParameter, 111 exp_param ExpParameter, 112 hdf5_data_param HDF5DataParameter, "
        "113 hdf5_output_param HDF5OutputParameter, 114 hinge_loss_param HingeLossParameter, "
        "115 image_data_param ImageDataParameter, 116 infogain_loss_param InfogainLossParameter, "
        "117 inner_product_param InnerProductParameter, 118 lrn_param LRNParameter, "
        "119 memory_data_param MemoryDataParameter, 120 mvn_param MVNParameter, 121 pooling_param PoolingParameter, "
        "122 power_param PowerParameter, 123 relu_param ReLUParameter, 124 sigmoid_param SigmoidParameter, "
        "125 softmax_param SoftmaxParameter, 126 slice_param SliceParameter, 127 tanh_param TanHParameter, "
        "128 threshold_param ThresholdParameter, 129 window_data_param WindowDataParameter, "
        "130 python_param PythonParameter, 131 prelu_param PReLUParameter, 132 spp_param SPPParameter, "
        "133 reshape_param ReshapeParameter, 134 log_param LogParameter, 135 flatten_param FlattenParameter, "
        "136 reduction_param ReductionParameter, 137 embed_param EmbedParameter, 138 tile_param TileParameter, "
        "139 batch_norm_param BatchNormParameter, 140 elu_param ELUParameter, 141 bias_param BiasParameter, "
        "142 scale_param ScaleParameter, 143 input_param InputParameter, 144 crop_param CropParameter, "
        "145 parameter_param ParameterParameter, 146 recurrent_param RecurrentParameter"
    ),
    "V1LayerParameter": (
        "1 layer V0LayerParameter, 2 bottom string*, 3 top string*, 4 name string, 5 type V1LayerType, "
        "6 blobs BlobProto*, 7 blobs_lr float*, 8 weight_decay float*, 9 concat_param ConcatParameter, "
        "10 convolution_param ConvolutionParameter, "
        "11 data_param DataParameter, 12 dropout_param DropoutParameter, 13 hdf5_data_param HDF5DataParameter, "
        "14 hdf5_output_param HDF5OutputParameter, 15 image_data_param ImageDataParameter, "
        "16 infogain_loss_param InfogainLossParameter, 17 inner_product_param InnerProductParameter, "
        "18 lrn_param LRNParameter, 19 pooling_param PoolingParameter, 20 window_data_param WindowDataParameter, "
        "21 power_param PowerParameter, 22 memory_data_param MemoryDataParameter, 23 argmax_param ArgMaxParameter, "
        "24 eltwise_param EltwiseParameter, 25 threshold_param ThresholdParameter, "
        "26 dummy_data_param DummyDataParameter, 27 accuracy_param AccuracyParameter, "
        "29 hinge_loss_param HingeLossParameter, 30 relu_param ReLUParameter, 31 slice_param SliceParameter, "
        "32 include NetStateRule*, 33 exclude NetStateRule*, 34 mvn_param MVNParameter, 35 loss_weight float*, "
        "36 transform_param TransformationParameter, 37 tanh_param TanHParameter, 38 sigmoid_param SigmoidParameter, "
        "39 softmax_param SoftmaxParameter, 40 contrastive_loss_param ContrastiveLossParameter, "
        "41 exp_param ExpParameter, 42 loss_param LossParameter, 1001 param string*, "
        "1002 blob_share_mode DimCheckMode*"
    ),
    "V0LayerParameter": (
        "1 name string, 2 type string, 3 num_output uint32, 4 biasterm bool true, 5 weight_filler FillerParameter, "
        "6 bias_filler FillerParameter, 7 pad uint32, 8 kernelsize uint32, 9 group uint32 1, 10 stride uint32 1, "
        "11 pool PoolMethod, 12 dropout_ratio float 0.5, 13 local_size uint32 5, 14 alpha float 1, 15 beta float 0.75, "
        "16 source string, 17 scale float 1, 18 meanfile string, 19 batchsize uint32, 20 cropsize uint32, "
        "21 mirror bool, 22 k float 1, 50 blobs BlobProto*, 51 blobs_lr float*, 52 weight_decay float*, "
        "53 rand_skip uint32, 54 det_fg_threshold float 0.5, 55 det_bg_threshold float 0.5, "
        "56 det_fg_fraction float 0.25, 58 det_context_pad uint32, 59 det_crop_mode string warp, 60 new_num int32, "
        "61 new_channels int32, 62 new_height int32, 63 new_width int32, 64 shuffle_images bool, "
        "65 concat_dim uint32 1, 1001 hdf5_output_param HDF5OutputParameter"
    ),
    "TransformationParameter": (
        "1 scale float 1, 2 mirror bool, 3 crop_size uint32, 4 mean_file string, 5 mean_value float*, "
        "6 force_color bool, 7 force_gray bool"
    ),
    "LossParameter": "1 ignore_label int32, 2 normalize bool, 3 normalization Normalization VALID",
    "AccuracyParameter": "1 top_k uint32 1, 2 axis int32 1, 3 ignore_label int32",
    "ArgMaxParameter": "1 out_max_val bool, 2 top_k uint32 1, 3 axis int32",
    "ClipParameter": "1 min float, 2 max float",
    "ConcatParameter": "1 concat_dim uint32 1, 2 axis int32 1",
    "ContrastiveLossParameter": "1 margin float 1, 2 legacy_version bool",
    "ConvolutionParameter": (
        "1 num_output uint32, 2 bias_term bool true, 3 pad uint32*, 4 kernel_size uint32*, 5 group uint32 1, "
        "6 stride uint32*, 7 weight_filler FillerParameter, 8 bias_filler FillerParameter, 9 pad_h uint32, "
        "10 pad_w uint32, 11 kernel_h uint32, 12 kernel_w uint32, 13 stride_h uint32, 14 stride_w uint32, "
        "15 engine Engine, 16 axis int32 1, 17 force_nd_im2col bool, 18 dilation uint32*"
    ),
    "CropParameter": "1 axis int32 2, 2 offset uint32*",
    "DataParameter": (
        "1 source string, 2 scale float 1, 3 mean_file string, 4 batch_size uint32, 5 crop_size uint32, "
        "6 mirror bool, 7 rand_skip uint32, 8 backend DataBase, 9 force_encoded_color bool, 10 prefetch uint32 4"
    ),
    "DropoutParameter": "1 dropout_ratio float 0.5",
    "DummyDataParameter": (
        "1 data_filler FillerParameter*, 2 num uint32*, 3 channels uint32*, 4 height uint32*, 5 width uint32*, "
        "6 shape BlobShape*"
    ),
    "EltwiseParameter": "1 operation EltwiseOp SUM, 2 coeff float*, 3 stable_prod_grad bool true",
    "ELUParameter": "1 alpha float 1",
    "EmbedParameter": (
        "1 num_output uint32, 2 input_dim uint32, 3 bias_term bool true, 4 weight_filler FillerParameter, "
        "5 bias_filler FillerParameter"
    ),
    "ExpParameter": _EXPONENT,
    "FlattenParameter": "1 axis int32 1, 2 end_axis int32 -1",
    "HDF5DataParameter": "1 source string, 2 batch_size uint32, 3 shuffle bool",
    "HDF5OutputParameter": "1 file_name string",
    "HingeLossParameter": "1 norm HingeNorm L1",
    "ImageDataParameter": (
        "1 source string, 2 scale float 1, 3 mean_file string, 4 batch_size uint32 1, 5 crop_size uint32, "
        "6 mirror bool, 7 rand_skip uint32, 8 shuffle bool, 9 new_height uint32, 10 new_width uint32, "
        "11 is_color bool true, 12 root_folder string"
    ),
    "InfogainLossParameter": "1 source string, 2 axis int32 1",
    "InnerProductParameter": (
        "1 num_output uint32, 2 bias_term bool true, 3 weight_filler FillerParameter, 4 bias_filler FillerParameter, "
        "5 axis int32 1, 6 transpose bool"
    ),
    "InputParameter": "1 shape BlobShape*",
    "LogParameter": _EXPONENT,
    "LRNParameter": (
        "1 local_size uint32 5, 2 alpha float 1, 3 beta float 0.75, 4 norm_region NormRegion, 5 k float 1, "
        "6 engine Engine"
    ),
    "MemoryDataParameter": "1 batch_size uint32, 2 channels uint32, 3 height uint32, 4 width uint32",
    "MVNParameter": "1 normalize_variance bool true, 2 across_channels bool, 3 eps float 1e-9",
    "ParameterParameter": "1 shape BlobShape",
    "PowerParameter": "1 power float 1, 2 scale float 1, 3 shift float",
    "PythonParameter": "1 module string, 2 layer string, 3 param_str string, 4 share_in_parallel bool",
    "RecurrentParameter": (
        "1 num_output uint32, 2 weight_filler FillerParameter, 3 bias_filler FillerParameter, 4 debug_info bool, "
        "5 expose_hidden bool"
    ),
    "ReductionParameter": "1 operation ReductionOp SUM, 2 axis int32, 3 coeff float 1",
    "ReLUParameter": "1 negative_slope float, 2 engine Engine",
    "PReLUParameter": "1 filler FillerParameter, 2 channel_shared bool",
    "ReshapeParameter": "1 shape BlobShape, 2 axis int32, 3 num_axes int32 -1",
    "BatchNormParameter": "1 use_global_stats bool, 2 moving_average_fraction float 0.999, 3 eps float 1e-5",
    "BiasParameter": "1 axis int32 1, 2 num_axes int32 1, 3 filler FillerParameter",
    "ScaleParameter": (
        "1 axis int32 1, 2 num_axes int32 1, 3 filler FillerParameter, 4 bias_term bool, 5 bias_filler FillerParameter"
    ),
    "SigmoidParameter": "1 engine Engine",
    "TanHParameter": "1 engine Engine",
    "SliceParameter": "1 slice_dim uint32 1, 2 slice_point uint32*, 3 axis int32 1",
    "SoftmaxParameter": "1 engine Engine, 2 axis int32 1",
    "SPPParameter": "1 pyramid_height uint32, 2 pool PoolMethod, 6 engine Engine",
    "SwishParameter": "1 beta float 1",
    "ThresholdParameter": "1 threshold float",
    "TileParameter": "1 axis int32 1, 2 tiles int32",
    "WindowDataParameter": (
        "1 source string, 2 scale float 1, 3 mean_file string, 4 batch_size uint32, 5 crop_size uint32, "
        "6 mirror bool, 7 fg_threshold float 0.5, 8 bg_threshold float 0.5, 9 fg_fraction float 0.25, "
        "10 context_pad uint32, 11 crop_mode string warp, 12 cache_images bool, 13 root_folder string"
    ),
    "SmoothL1LossParameter": "1 sigma float 1",
    "PermuteParameter": "1 order uint32*",
    "SpatialDropoutParameter": "1 dropout_ratio float 0.5",
    "ROIPoolingParameter": "1 pooled_h uint32, 2 pooled_w uint32, 3 spatial_scale float 1",
    "NormalizeParameter": (
        "1 across_spatial bool true, 2 scale_filler FillerParameter, 3 channel_shared bool true, 4 eps float 1e-10"
    ),
    "SolverParameter": (
        "1 train_net string, 2 test_net string*, 3 test_iter int32*, 4 test_interval int32, 5 base_lr float, "
        "6 display int32, 7 max_iter int32, 8 lr_policy string, 9 gamma float, 10 power float, 11 momentum float, "
        "12 weight_decay float, 13 stepsize int32, 14 snapshot int32, 15 snapshot_prefix string, "
        "16 snapshot_diff bool, 17 solver_mode SolverMode GPU, 18 device_id int32, 19 test_compute_loss bool, "
        "20 random_seed int64 -1, 21 train_net_param NetParameter, 22 test_net_param NetParameter*, "
        "23 debug_info bool, 24 net string, 25 net_param NetParameter, 26 train_state NetState, "
        "27 test_state NetState*, 28 snapshot_after_train bool true, 29 regularization_type string L2, "
        "30 solver_type SolverType, 31 delta float 1e-8, 32 test_initialization bool true, 33 average_loss int32 1, "
        "34 stepvalue int32*, 35 clip_gradients float -1, 36 iter_size int32 1, "
        "37 snapshot_format SnapshotFormat BINARYPROTO, 38 rms_decay float 0.99, 39 momentum2 float 0.999, "
        "40 type string SGD"
    ),
    "SolverState": "1 iter int32, 2 learned_net string, 3 history BlobProto*, 4 current_step int32",
}

_POOLING_2D = (
    "1 pool PoolMethod, 2 kernel_size uint32, 3 stride uint32 1, 4 pad uint32, 5 kernel_h uint32, 6 kernel_w uint32, "
    "7 stride_h uint32, 8 stride_w uint32, 9 pad_h uint32, 10 pad_w uint32, 11 engine Engine, 12 global_pooling bool"
)
DIALECT_MESSAGES: dict[str, dict[str, str]] = {
    "bvlc": {"PoolingParameter": _POOLING_2D + ", 13 round_mode RoundMode"},
    "intel": {
        "PoolingParameter": _POOLING_2D
        + ", 13 avg_include_pad bool true, 14 axis int32 1, 15 pad_3d uint32*, 16 kernel_size_3d uint32*, "
        "17 stride_3d uint32*"
    },
    "extended": {
        "PoolingParameter": (
            "1 pool PoolMethod, 2 pad uint32*, 3 kernel_size uint32*, 4 stride uint32*, 5 pad_h uint32, "
            "6 pad_w uint32, 7 kernel_h uint32, 8 kernel_w uint32, 9 stride_h uint32, 10 stride_w uint32, "
            "11 engine Engine, 12 global_pooling bool, 13 axis int32 1, 14 avg_include_pad bool true"
        )
    },
}

_FUSED_RELU = "19 relu bool, 20 negative_slope float"
_WEIGHTED_NORM = (
    "4 engine Engine, 5 use_weight_bias bool true, 6 bias_term bool true, 7 filler FillerParameter, "
    "8 bias_filler FillerParameter"
)
_EVENTS = "5 minimum_loss float 1e38, 6 iter_last_event int32"
_PLATEAU = "43 show_per_class_result bool, 44 plateau_winsize int32*, 46 disabled_update string*, 47 engine string"

DIALECT_FIELDS: dict[str, dict[str, str]] = {
    "bvlc": {
        "LayerParameter": "147 swish_param SwishParameter, 148 clip_param ClipParameter",
        "SolverParameter": "41 layer_wise_reduce bool true, 42 weights string*",
    },
    "intel": {
        "NetParameter": "9 engine string, 11 bn_stats_batch_size int32",
        "LayerParameter": (
            "148 smooth_l1_loss_param SmoothL1LossParameter, 149 engine string, "
            "154 roi_pooling_param ROIPoolingParameter, 155 spatial_dropout_param SpatialDropoutParameter, "
            "202 permute_param PermuteParameter, "
            "206 norm_param NormalizeParameter"
        ),
        "ConvolutionParameter": _FUSED_RELU + ", 23 coeff float 1",
        "BatchNormParameter": _WEIGHTED_NORM + ", 9 stats_batch_size uint32, 10 relu bool",
        "SolverParameter": _PLATEAU,
        "SolverState": _EVENTS,
    },
    "extended": {
        "NetParameter": "9 engine string",
        "LayerParameter": (
            "148 smooth_l1_loss_param SmoothL1LossParameter, 149 engine string, "
            "153 roi_pooling_param ROIPoolingParameter, 180 spatial_dropout_param SpatialDropoutParameter, "
            "202 permute_param PermuteParameter, "
            "206 norm_param NormalizeParameter"
        ),
        "ConvolutionParameter": _FUSED_RELU,
        "BatchNormParameter": _WEIGHTED_NORM,
        "SolverParameter": "41 eval_type string, 42 ap_version string, " + _PLATEAU,
        "SolverState": _EVENTS,
    },
}
