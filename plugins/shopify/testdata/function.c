// A discount function on the Shopify Function API, version 2, or with V1 version 1.
//
// Lines of at least the configuration's `minimum` units get its `percentage` off. The
// message counts the calls of the function in its memory, which must always be 1.

typedef unsigned int u32;
typedef unsigned long long val;

#ifdef V1
#define MODULE "shopify_function_v1"
#define CONTEXT u32 context,
#define ONLY u32 context
#define WITH context,
#define ALONE context
#else
#define MODULE "shopify_function_v2"
#define CONTEXT
#define ONLY void
#define WITH
#define ALONE
#endif
#define IMPORT(name) __attribute__((import_module(MODULE), import_name("shopify_function_" #name))) extern

IMPORT(input_get) val input_get(ONLY);
IMPORT(input_get_obj_prop) val input_get_obj_prop(CONTEXT val scope, const char *name, u32 n);
IMPORT(input_get_interned_obj_prop) val input_get_interned_obj_prop(CONTEXT val scope, u32 id);
IMPORT(input_get_at_index) val input_get_at_index(CONTEXT val scope, u32 index);
IMPORT(input_get_val_len) u32 input_get_val_len(CONTEXT val scope);
IMPORT(input_read_utf8_str) void input_read_utf8_str(CONTEXT u32 place, char *out, u32 n);
IMPORT(intern_utf8_str) u32 intern_utf8_str(CONTEXT const char *s, u32 n);
IMPORT(output_new_f64) u32 output_new_f64(CONTEXT double v);
IMPORT(output_new_utf8_str) u32 output_new_utf8_str(CONTEXT const char *s, u32 n);
IMPORT(output_new_interned_utf8_str) u32 output_new_interned_utf8_str(CONTEXT u32 id);
IMPORT(output_new_object) u32 output_new_object(CONTEXT u32 n);
IMPORT(output_finish_object) u32 output_finish_object(ONLY);
IMPORT(output_new_array) u32 output_new_array(CONTEXT u32 n);
IMPORT(output_finish_array) u32 output_finish_array(ONLY);
#ifdef V1
IMPORT(context_new) u32 context_new(void);
IMPORT(output_finalize) u32 output_finalize(u32 context);
#else
IMPORT(log_new_utf8_str) void log_new_utf8_str(const char *s, u32 n);
#endif

static char message[] = "call 0";
static char id[128];

static double number(val v) {
	union { val v; double d; } u = {v};
	return u.d;
}

static u32 length(const char *s) {
	u32 n = 0;
	while (s[n]) n++;
	return n;
}

#define PROPERTY(scope, name) input_get_obj_prop(WITH scope, name, sizeof(name) - 1)
#define TEXT(s) output_new_utf8_str(WITH s, length(s))
#define OBJECT(n) output_new_object(WITH n)
#define END_OBJECT output_finish_object(ALONE)
#define ARRAY(n) output_new_array(WITH n)
#define END_ARRAY output_finish_array(ALONE)

__attribute__((export_name("cart_lines_discounts_generate_run"))) void run(void) {
#ifdef V1
	u32 context = context_new();
#else
	log_new_utf8_str("running", 7);
#endif
	message[5]++;
	val input = input_get(ALONE);
	val configuration = PROPERTY(PROPERTY(PROPERTY(input, "discount"), "metafield"), "jsonValue");
	val line = input_get_at_index(WITH PROPERTY(PROPERTY(input, "cart"), "lines"), 0);
	u32 quantity = intern_utf8_str(WITH "quantity", 8);
	int applies = number(input_get_interned_obj_prop(WITH line, quantity)) >= number(PROPERTY(configuration, "minimum"));
	val line_id = PROPERTY(line, "id");
	u32 n = input_get_val_len(WITH line_id);
	if (n > sizeof(id)) __builtin_trap();
	input_read_utf8_str(WITH(u32) line_id, id, n);

	OBJECT(1);
	TEXT("operations");
	ARRAY(applies);
	if (applies) {
		OBJECT(1);
		TEXT("productDiscountsAdd");
		OBJECT(2);
		TEXT("selectionStrategy");
		TEXT("FIRST");
		TEXT("candidates");
		ARRAY(1);
		OBJECT(3);
		TEXT("message");
		TEXT(message);
		TEXT("targets");
		ARRAY(1);
		OBJECT(1);
		TEXT("cartLine");
		OBJECT(1);
		output_new_interned_utf8_str(WITH intern_utf8_str(WITH "id", 2));
		output_new_utf8_str(WITH id, n);
		END_OBJECT;
		END_OBJECT;
		END_ARRAY;
		TEXT("value");
		OBJECT(1);
		TEXT("percentage");
		OBJECT(1);
		TEXT("value");
		output_new_f64(WITH number(PROPERTY(configuration, "percentage")));
		END_OBJECT;
		END_OBJECT;
		END_OBJECT;
		END_ARRAY;
		END_OBJECT;
		END_OBJECT;
	}
	END_ARRAY;
	END_OBJECT;
#ifdef V1
	output_finalize(context);
#endif
}
